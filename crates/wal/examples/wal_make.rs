//! Writes a log from JSON lines on standard input, as `wal_dump` prints them. The first line is the metadata; an entry,
//! state or mark is appended when its line comes; `{"sync":true}` syncs, and so does the end.
//!
//! `wal_make DIR [SEGMENT_BYTES]`; an existing log is continued, then the metadata line is only compared.

use std::io::{self, BufRead};
use std::path::Path;
use std::sync::Arc;

use milepost_env::OsDisk;
use milepost_proto::raftpb::{ConfState, Entry, HardState};
use milepost_types::{LogIndex, Term};
use milepost_wal::{Metadata, Options, SnapshotMark, Wal, WalError};
use serde_json::Value;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let dir = Path::new(args.first().ok_or("usage: wal_make DIR [SEGMENT_BYTES]")?);
    let mut options = Options::default();
    if let Some(bytes) = args.get(1) {
        options.segment_bytes = bytes.parse()?;
    }
    let mut wal = None;
    for line in io::stdin().lock().lines() {
        let line: Value = serde_json::from_str(&line?)?;
        match &mut wal {
            None => wal = Some(begin(dir, &line["metadata"], &options)?),
            Some(wal) => take(wal, &line)?,
        }
    }
    wal.ok_or("no metadata line")?.sync()?;
    Ok(())
}

fn begin(dir: &Path, line: &Value, options: &Options) -> Result<Wal, Failure> {
    let metadata = Metadata { node_id: number(&line["node_id"])?, cluster_id: number(&line["cluster_id"])? };
    let wal = match Wal::create(Arc::new(OsDisk), dir, metadata, options.clone()) {
        Err(WalError::AlreadyExists { .. }) => Wal::open(Arc::new(OsDisk), dir, options.clone())?.0,
        created => created?,
    };
    if wal.metadata() == metadata { Ok(wal) } else { Err(format!("the log is that of {:?}", wal.metadata()).into()) }
}

fn take(wal: &mut Wal, line: &Value) -> Result<(), Failure> {
    let (kind, value) = line.as_object().and_then(|line| line.iter().next()).ok_or("an empty line")?;
    match kind.as_str() {
        "entry" => {
            let data = hex(value["data"].as_str().unwrap_or(""))?;
            let entry = Entry {
                r#type: Some(i32::try_from(number(&value["type"])?)?),
                term: Some(number(&value["term"])?),
                index: Some(number(&value["index"])?),
                data: (!data.is_empty()).then(|| data.into()),
            };
            wal.append(&[entry], None)?;
        }
        "state" => {
            let [term, vote, commit] = ["term", "vote", "commit"].map(|name| number(&value[name]));
            wal.append(&[], Some(&HardState { term: Some(term?), vote: Some(vote?), commit: Some(commit?) }))?;
        }
        "mark" => wal.save_snapshot_mark(&mark(value)?)?,
        "sync" => wal.sync()?,
        other => return Err(format!("a line of kind {other}").into()),
    }
    Ok(())
}

fn mark(value: &Value) -> Result<SnapshotMark, Failure> {
    let ids =
        |name: &str| value[name].as_array().map_or(&[][..], Vec::as_slice).iter().map(number).collect::<Result<_, _>>();
    let conf_state = ConfState {
        voters: ids("voters")?,
        learners: ids("learners")?,
        voters_outgoing: ids("voters_outgoing")?,
        learners_next: ids("learners_next")?,
        auto_leave: Some(value["auto_leave"].as_bool().unwrap_or(false)),
    };
    Ok(SnapshotMark { index: LogIndex(number(&value["index"])?), term: Term(number(&value["term"])?), conf_state })
}

fn number(value: &Value) -> Result<u64, Failure> {
    value.as_u64().ok_or_else(|| format!("{value} is no number").into())
}

fn hex(text: &str) -> Result<Vec<u8>, Failure> {
    if !text.len().is_multiple_of(2) {
        return Err("half a byte of hex".into());
    }
    let digits: Vec<char> = text.chars().collect();
    let bytes = digits.chunks(2).map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16));
    Ok(bytes.collect::<Result<_, _>>()?)
}
