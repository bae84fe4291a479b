//! Reads a bbolt database and writes it again, as a snapshot stream is written.
//!
//! `bolt_copy FROM TO`: the number of items and of free pages goes to standard output. `FROM` is checked first.

use std::fs;
use std::io::BufWriter;
use std::path::Path;

use milepost_bolt::{Emitter, File, Planner};
use milepost_env::{Disk, Open, OsDisk};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [from, to] = &words[..] else { return Err("usage: bolt_copy FROM TO".into()) };
    let file = File::open(OsDisk.open(Path::new(from), Open::Read)?)?;
    let pages = file.check()?;
    let mut planner = Planner::new();
    for name in file.buckets()? {
        planner.bucket(&name)?;
        for item in file.bucket(&name)?.ok_or("a bucket went away")? {
            let (key, value) = item?;
            planner.item(&key, value.len())?;
        }
    }
    let mut emitter = Emitter::new(planner.finish(), file.txid().max(1), BufWriter::new(fs::File::create(to)?))?;
    for name in file.buckets()? {
        emitter.bucket(&name)?;
        for item in file.bucket(&name)?.ok_or("a bucket went away")? {
            let (key, value) = item?;
            emitter.item(&key, &value)?;
        }
    }
    emitter.finish()?;
    println!("{} items, {} free pages", pages.items, pages.free);
    Ok(())
}
