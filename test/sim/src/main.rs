//! Runs seeds from the command line: see `--help`.

use milepost_sim::{Plant, replay, run, seeds_until_found, suite};
use std::process::ExitCode;
use std::time::Instant;

const HELP: &str = "\
milepost-sim: whole clusters under one seed

  --seeds N       run N seeds and print how often each kind of thing happened (default 200)
  --from K        begin with seed K (default 0)
  --threads N     on so many threads (default: one per processor)
  --seed N        run one seed
  --trace         with --seed: print every event
  --plant NAME    plant a bug, and look for the first seed that finds it (or, with --seed, run that one)
  --plants        name the bugs that can be planted
";

struct Args {
    seeds: u64,
    from: u64,
    threads: usize,
    seed: Option<u64>,
    trace: bool,
    plant: Option<Plant>,
}

fn parse() -> Result<Option<Args>, String> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut args = Args { seeds: 200, from: 0, threads, seed: None, trace: false, plant: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || {
            let text = words.next().ok_or(format!("{word} needs a number"))?;
            text.parse::<u64>().map_err(|_| format!("{word}: {text:?} is not a number"))
        };
        match word.as_str() {
            "--seeds" => args.seeds = number()?,
            "--from" => args.from = number()?,
            "--threads" => args.threads = usize::try_from(number()?).unwrap_or(1),
            "--seed" => args.seed = Some(number()?),
            "--trace" => args.trace = true,
            "--plant" => {
                let name = words.next().ok_or("--plant needs a name: see --plants")?;
                let plant = Plant::ALL.into_iter().find(|plant| plant.name() == name);
                args.plant = Some(plant.ok_or(format!("there is no bug {name:?} to plant: see --plants"))?);
            }
            "--plants" => {
                Plant::ALL.iter().for_each(|plant| println!("{}", plant.name()));
                return Ok(None);
            }
            "--help" | "-h" => {
                print!("{HELP}");
                return Ok(None);
            }
            _ => return Err(format!("{word:?} is not known: see --help")),
        }
    }
    Ok(Some(args))
}

fn main() -> ExitCode {
    let args = match parse() {
        Ok(Some(args)) => args,
        Ok(None) => return ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("milepost-sim: {why}");
            return ExitCode::from(2);
        }
    };
    if let Some(seed) = args.seed {
        return one(seed, &args);
    }
    if let Some(plant) = args.plant {
        return match seeds_until_found(plant, args.seeds) {
            Some((seeds, why)) => {
                println!("{}: found by seed {} of {seeds}: {why}", plant.name(), seeds - 1);
                println!("replay it: {}", replay(seeds - 1, Some(plant)));
                ExitCode::SUCCESS
            }
            None => {
                println!("{}: not found by {} seeds", plant.name(), args.seeds);
                ExitCode::FAILURE
            }
        };
    }
    many(&args)
}

fn one(seed: u64, args: &Args) -> ExitCode {
    let outcome = run(seed, args.plant, args.trace);
    outcome.trace.iter().for_each(|line| println!("{line}"));
    print!("{}", outcome.counts);
    match outcome.broken {
        None => ExitCode::SUCCESS,
        Some(why) => {
            eprintln!("seed {seed}: {why}");
            ExitCode::FAILURE
        }
    }
}

fn many(args: &Args) -> ExitCode {
    let start = Instant::now();
    let report = suite(args.from, args.seeds, args.threads, &|seed, why| {
        eprintln!("seed {seed}: {why}\nreplay it: {}", replay(seed, None));
    });
    print!("{}", report.counts);
    let last = args.from + args.seeds.saturating_sub(1);
    println!("seeds {}..={last}: {} broken, {:.1?}", args.from, report.broken.len(), start.elapsed());
    let missing = report.counts.missing();
    if !missing.is_empty() {
        eprintln!("never happened: {}", missing.join("; "));
    }
    if report.broken.is_empty() && missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
