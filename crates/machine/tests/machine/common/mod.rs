//! A machine over the in-memory engine, and the small language of the golden scripts.

mod parse;
mod print;

use std::sync::Arc;

use bytes::Bytes;
use milepost_engine::mem::MemEngine;
use milepost_machine::{Applied, Config, Entry, EntryKind, Fatal, Machine, Version, member};
use milepost_mvcc::{Imported, Store, StoreOptions};
use milepost_proto::Message;
use milepost_proto::etcdserverpb as pb;
use milepost_proto::raftpb::ConfChange;
use milepost_types::{LogIndex, MemberId, Term};
use pb::internal_raft_request::Request;

pub use parse::{Command, parse};

/// One member's state, and the log position it has reached.
pub struct Rig {
    pub engine: Arc<MemEngine>,
    pub machine: Machine,
    pub config: Config,
    options: StoreOptions,
    index: u64,
}

pub fn config() -> Config {
    Config { member_id: MemberId(0xa), server_version: Version::parse("3.7.1").unwrap(), ..Config::default() }
}

impl Rig {
    pub fn new(config: Config) -> Self {
        Self::with(config, StoreOptions::default())
    }

    pub fn with(config: Config, options: StoreOptions) -> Self {
        let engine = Arc::new(MemEngine::new());
        let machine = open(&engine, &config, options.clone());
        Self { engine, machine, config, options, index: 0 }
    }

    /// Goes on from another member's snapshot.
    pub fn install(&mut self, imported: Imported) -> Result<(), Fatal> {
        let (store, writer, opened) = imported.take_over().unwrap();
        drop(self.machine.replace(store, writer, &opened)?);
        self.index = opened.applied.0;
        self.engine = self.engine.that_counts();
        assert_eq!(self.machine.check(), Ok(()));
        Ok(())
    }

    /// Stops and starts again over what is durable: everything, after a sync.
    pub fn reopen(self) -> Self {
        let Self { engine, machine, config, options, index } = self;
        let store = machine.reader().store();
        store.force_sync().unwrap();
        drop(machine.into_writer());
        store.close();
        let machine = open(&engine, &config, options.clone());
        assert_eq!(machine.applied().0, LogIndex(index));
        Self { engine, machine, config, options, index }
    }

    pub fn apply(&mut self, request: Request, want_reply: bool) -> Result<Applied, Fatal> {
        let raft_request = pb::InternalRaftRequest {
            header: Some(pb::RequestHeader { id: self.index + 100, ..Default::default() }),
            id: 0,
            request: Some(request),
        };
        self.apply_bytes(EntryKind::Normal, raft_request.encode_to_vec().into(), want_reply)
    }

    pub fn conf_change(&mut self, change: &ConfChange, want_reply: bool) -> Result<Applied, Fatal> {
        self.apply_bytes(EntryKind::ConfChange, change.encode_to_vec().into(), want_reply)
    }

    pub fn apply_empty(&mut self) -> Result<Applied, Fatal> {
        self.apply_bytes(EntryKind::Normal, Bytes::new(), false)
    }

    pub fn apply_bytes(&mut self, kind: EntryKind, data: Bytes, want_reply: bool) -> Result<Applied, Fatal> {
        let entry = Entry { index: LogIndex(self.index + 1), term: Term(1), kind, data: &data };
        let applied = self.machine.apply(entry, want_reply)?;
        self.index += 1;
        assert_eq!(self.machine.applied(), (LogIndex(self.index), Term(1)));
        assert_eq!(self.machine.check(), Ok(()));
        Ok(applied)
    }

    /// Runs one line of a script and says what came of it.
    pub fn run(mut self, line: &str) -> (Self, String) {
        let (want_reply, text) = match line.strip_prefix("noreply ") {
            Some(rest) => (false, rest),
            None => (true, line),
        };
        let out = match parse(text) {
            Command::Propose(request) => print::applied(self.apply(request, want_reply)),
            Command::ConfChange(change) => print::applied(self.conf_change(&change, want_reply)),
            Command::Empty => print::applied(self.apply_empty()),
            Command::Garbage(bytes) => print::applied(self.apply_bytes(EntryKind::Normal, bytes.into(), true)),
            Command::Range(request) => print::outcome(self.machine.reader().range(&request).map(|r| print::range(&r))),
            Command::Txn(request) => {
                let reply = self.machine.reader().txn_readonly(&request);
                print::outcome(reply.map(|reply| print::txn(&reply)))
            }
            Command::Stream(request) => {
                let mut stream = self.machine.reader().range_stream(request);
                let mut out = String::new();
                loop {
                    match stream.next_piece() {
                        Ok(None) => break out,
                        Ok(Some(piece)) => out += &print::range(&piece),
                        Err(error) => break format!("{out}error: {error}\n"),
                    }
                }
            }
            Command::State => print::state(&self.machine.reader()),
            Command::Reopen => {
                self = self.reopen();
                String::new()
            }
        };
        (self, out)
    }
}

fn open(engine: &Arc<MemEngine>, config: &Config, options: StoreOptions) -> Machine {
    let (store, writer, opened) = Store::open(Arc::clone(engine) as _, options).unwrap();
    Machine::open(store, writer, &opened, config.clone()).unwrap()
}

/// The change of membership that a script line asks for.
fn change(words: &[&str]) -> ConfChange {
    let id = |text: &str| MemberId(u64::from_str_radix(text, 16).unwrap());
    let urls = |list: &str| list.split(',').map(str::to_owned).collect::<Vec<_>>();
    match words {
        ["add", who, list] => {
            member::add(7, &member::Member { id: id(who), peer_urls: urls(list), ..Default::default() })
        }
        ["learner", who, list] => {
            let learner = member::Member { id: id(who), peer_urls: urls(list), is_learner: true, ..Default::default() };
            member::add(7, &learner)
        }
        ["promote", who] => member::promote(7, id(who)),
        ["update", who, list] => member::update(7, id(who), urls(list)),
        ["remove", who] => member::remove(7, id(who)),
        ["malformed", who] => ConfChange { context: Some("{".into()), ..member::promote(7, id(who)) },
        ["other", who] => ConfChange { node_id: Some(id(who).0), ..member::update(7, MemberId(0x99), vec![]) },
        _ => panic!("no such change of membership: {words:?}"),
    }
}
