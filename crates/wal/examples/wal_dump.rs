//! Prints what a log holds as JSON lines, as `wal_make` reads them; data in hex. Changes nothing.
//!
//! `wal_dump [--repair] DIR`: with `--repair` the log is opened for writing first, which cuts a torn tail.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::Arc;

use milepost_env::OsDisk;
use milepost_wal::{Options, Recovered, SnapshotMark, Wal};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let recovered = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--repair", dir] => Wal::open(Arc::new(OsDisk), Path::new(dir), Options::default())?.1,
        [dir] => Wal::inspect(&OsDisk, Path::new(dir))?,
        _ => return Err("usage: wal_dump [--repair] DIR".into()),
    };
    let mut out = BufWriter::new(io::stdout().lock());
    for line in lines(&recovered) {
        writeln!(out, "{line}")?;
    }
    out.flush()?;
    Ok(())
}

fn lines(recovered: &Recovered) -> impl Iterator<Item = Value> {
    let Recovered { metadata, hard_state: state, snapshots, snapshot, entries, repaired, .. } = recovered;
    let head = [
        json!({"metadata": {"node_id": metadata.node_id, "cluster_id": metadata.cluster_id}}),
        json!({"state": {"term": state.term(), "vote": state.vote(), "commit": state.commit()}}),
    ];
    let entries = entries.iter().map(|entry| {
        let data: String = entry.data.iter().flatten().map(|byte| format!("{byte:02x}")).collect();
        json!({"entry": {"index": entry.index(), "term": entry.term(), "type": entry.r#type(), "data": data}})
    });
    let torn = repaired.iter().map(|torn| json!({"torn": {"offset": torn.offset, "problem": torn.problem}}));
    let chosen = json!({"snapshot": snapshot.index.0});
    head.into_iter().chain(snapshots.iter().map(mark)).chain([chosen]).chain(entries).chain(torn)
}

fn mark(mark: &SnapshotMark) -> Value {
    let state = &mark.conf_state;
    json!({"mark": {
        "index": mark.index.0, "term": mark.term.0, "voters": state.voters, "learners": state.learners,
        "voters_outgoing": state.voters_outgoing, "learners_next": state.learners_next, "auto_leave": state.auto_leave(),
    }})
}
