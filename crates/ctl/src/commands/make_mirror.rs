//! `make-mirror`: what happens to keys here happens to keys elsewhere.
//!
//! ```text
//!  source ── pages of 1000 at one revision ──► one put each ──► destination
//!         ── watch from the next revision ───► one transaction for each revision ──►
//! ```
//! Leases are not mirrored. It never ends by itself, and always with an error: whoever keeps it running starts it again.

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use milepost_client::{Auth, Client, Config, Deadline, Error, Secure};
use milepost_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest, request_op::Request,
};
use milepost_proto::mvccpb::{Event, KeyValue, event::EventType};
use tokio::task::LocalSet;

use crate::call::{Call, connect, user_and_password};
use crate::frame::{Flag, Flags, Group, Kind, Spec};
use crate::out;
use crate::outcome::{Failure, Outcome, exit};
use crate::range::{OPEN_END, prefix_end};

/// The command.
pub const COMMAND: Spec = Spec {
    name: "make-mirror",
    usage: "make-mirror [options] <destination>",
    short: "Copies keys to another cluster, and goes on as they change",
    long: "Copies keys to another cluster, and goes on as they change. The number of keys written so far is printed\n\
        every 30 seconds. It ends only when something fails, or by a signal.",
    group: Group::Utility,
    flags: &[
        Flag::text("prefix", "", "only keys that begin with this"),
        Flag::int("rev", "0", "copy nothing; only mirror the changes from this revision on"),
        Flag { kind: Kind::Uint, ..Flag::int("max-txn-ops", "128", "how many changes are written at once at most") },
        Flag::text("dest-prefix", "", "what stands there in place of --prefix"),
        Flag::bool("no-dest-prefix", "nothing stands there in place of --prefix"),
        Flag::text("dest-cert", "", "file with our TLS certificate for the destination, PEM"),
        Flag::text("dest-key", "", "file with our TLS key for the destination, PEM"),
        Flag::text("dest-cacert", "", "file with the authorities of the destination's certificates, PEM"),
        Flag { default: "true", ..Flag::bool("dest-insecure-transport", "speak to the destination without TLS") },
        Flag::text("dest-user", "", "name or name:password at the destination; a missing password is asked for"),
        Flag::text("dest-password", "", "password at the destination; all of --dest-user is then the name"),
    ],
    run: Some(|call| Box::pin(run(call))),
    ..Spec::NEW
};

/// Keys of one page of the first copy.
const PAGE_KEYS: i64 = 1000;

/// Between two lines that tell how far it has come.
const REPORT_EVERY: Duration = Duration::from_secs(30);

async fn run(mut call: Call) -> Outcome {
    let [destination] = call.args.as_slice() else {
        return Err(Failure::args("make-mirror takes one destination argument"));
    };
    let destination = String::from_utf8_lossy(destination).into_owned();
    let (config, _) = call.settle().await?;
    let to = connect(destination_config(&call.flags, &config, destination)?).await?;
    let from = connect(config).await?;
    let names = Names::of(&call.flags)?;
    let total = Rc::new(Cell::new(0u64));
    let reporter = LocalSet::new();
    let counted = total.clone();
    reporter.spawn_local(async move {
        loop {
            tokio::time::sleep(REPORT_EVERY).await;
            if out::line(format_args!("{}", counted.get())).is_err() {
                return;
            }
        }
    });
    let mirror = Mirror { from, to, names, total, changes_max: call.flags.uint("max-txn-ops").max(1) as usize };
    let start = call.flags.int("rev");
    let Err(error) = reporter.run_until(mirror.run(start)).await;
    Err(Failure::new(exit::ERROR, error.to_string()))
}

fn destination_config(flags: &Flags, source: &Config, endpoint: String) -> Outcome<Config> {
    let user = flags.text("dest-user");
    let auth = match user {
        "" => Auth::None,
        user => user_and_password(user, flags.text("dest-password"), "Destination Password: ")?,
    };
    let secure = Secure {
        cert: flags.text("dest-cert").to_owned(),
        key: flags.text("dest-key").to_owned(),
        cacert: flags.text("dest-cacert").to_owned(),
        insecure_transport: flags.bool("dest-insecure-transport"),
        ..Secure::default()
    };
    Ok(Config { endpoints: vec![endpoint], secure, auth, ..source.clone() })
}

/// What keys are called there.
struct Names {
    prefix: Vec<u8>,
    destination: Vec<u8>,
}

impl Names {
    fn of(flags: &Flags) -> Outcome<Names> {
        let (prefix, destination) = (flags.text("prefix"), flags.text("dest-prefix"));
        let bare = flags.bool("no-dest-prefix");
        if bare && !destination.is_empty() {
            return Err(Failure::args(
                "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one",
            ));
        }
        let destination = if destination.is_empty() && !bare { prefix } else { destination };
        Ok(Names { prefix: prefix.into(), destination: destination.into() })
    }

    fn of_key(&self, key: &[u8]) -> Vec<u8> {
        let rest = key.strip_prefix(self.prefix.as_slice()).unwrap_or(key);
        [&self.destination, rest].concat()
    }

    /// The first key to copy, and the end of the range.
    fn range(&self) -> (Vec<u8>, Vec<u8>) {
        match self.prefix.as_slice() {
            [] => (OPEN_END.to_vec(), OPEN_END.to_vec()),
            prefix => (prefix.to_vec(), prefix_end(prefix)),
        }
    }
}

struct Mirror {
    from: Client,
    to: Client,
    names: Names,
    total: Rc<Cell<u64>>,
    changes_max: usize,
}

impl Mirror {
    /// Copies all unless the changes are wanted from a revision above 1, then follows.
    async fn run(&self, start: i64) -> Result<Infallible, Error> {
        let copied = if start > 1 { start - 1 } else { self.copy().await? };
        self.follow(copied + 1).await
    }

    /// Copies what is there, as of one revision, which it returns.
    async fn copy(&self) -> Result<i64, Error> {
        let (mut key, range_end) = self.names.range();
        let mut revision = 0;
        loop {
            let request = RangeRequest {
                key: key.into(),
                range_end: range_end.clone().into(),
                limit: PAGE_KEYS,
                revision,
                ..RangeRequest::default()
            };
            let page = self.from.kv().range(request, Deadline::NEVER).await?;
            // The first page says which revision all others are of.
            revision = if revision == 0 { page.header.map_or(0, |header| header.revision) } else { revision };
            for pair in &page.kvs {
                self.to.kv().put(self.put(pair), Deadline::NEVER).await?;
                self.total.set(self.total.get() + 1);
            }
            match page.kvs.last() {
                Some(last) if page.more => key = [&last.key[..], b"\0"].concat(),
                _ => return Ok(revision),
            }
        }
    }

    fn put(&self, pair: &KeyValue) -> PutRequest {
        PutRequest { key: self.names.of_key(&pair.key).into(), value: pair.value.clone(), ..PutRequest::default() }
    }

    /// Writes changes as they come. Those of one revision stay together where they fit.
    async fn follow(&self, revision: i64) -> Result<Infallible, Error> {
        let (key, range_end) = self.names.range();
        let request = WatchCreateRequest {
            key: key.into(),
            range_end: range_end.into(),
            start_revision: revision,
            ..WatchCreateRequest::default()
        };
        let mut watcher = self.from.watch(request);
        while let Some(update) = watcher.next().await {
            if update.response.compact_revision != 0 {
                return Err(Error::client("etcdserver: mvcc: required revision has been compacted"));
            }
            if let Some(error) = update.error() {
                return Err(error);
            }
            let mut changes = Vec::new();
            let mut last = 0;
            for event in &update.response.events {
                let Some(pair) = &event.kv else { continue };
                if (last != 0 && pair.mod_revision > last) || changes.len() == self.changes_max {
                    self.write(std::mem::take(&mut changes)).await?;
                }
                last = pair.mod_revision;
                changes.push(self.change(event, pair));
                self.total.set(self.total.get() + 1);
            }
            if !changes.is_empty() {
                self.write(changes).await?;
            }
        }
        Err(Error::client("the watch ended without a reason"))
    }

    fn change(&self, event: &Event, pair: &KeyValue) -> RequestOp {
        let request = if event.r#type() == EventType::Delete {
            let key = self.names.of_key(&pair.key).into();
            Request::RequestDeleteRange(DeleteRangeRequest { key, ..DeleteRangeRequest::default() })
        } else {
            Request::RequestPut(self.put(pair))
        };
        RequestOp { request: Some(request) }
    }

    async fn write(&self, success: Vec<RequestOp>) -> Result<(), Error> {
        let request = TxnRequest { success, ..TxnRequest::default() };
        self.to.kv().txn(request, Deadline::NEVER).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(line: &[&str], key: &str) -> String {
        let words: Vec<Vec<u8>> = line.iter().map(|word| word.as_bytes().to_vec()).collect();
        let (flags, _) = crate::frame::parse(&[&crate::commands::ROOT, &COMMAND], &words).unwrap();
        String::from_utf8(Names::of(&flags).ok().unwrap().of_key(key.as_bytes())).unwrap()
    }

    #[test]
    fn keys_take_the_destinations_prefix() {
        assert_eq!(named(&[], "a/b"), "a/b");
        assert_eq!(named(&["--prefix=a/"], "a/a/b"), "a/a/b");
        assert_eq!(named(&["--prefix=a/", "--dest-prefix", "x/"], "a/a/b"), "x/a/b");
        assert_eq!(named(&["--prefix=a/", "--no-dest-prefix"], "a/a/b"), "a/b");
        assert_eq!(named(&["--dest-prefix", "x/"], "b"), "x/b");
    }
}
