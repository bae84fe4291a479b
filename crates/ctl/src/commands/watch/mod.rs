//! `watch`: changes of keys as they happen.

mod words;

use std::io::{self, BufRead as _};

use milepost_client::{Update, Watcher, Watches};
use milepost_proto::etcdserverpb::WatchCreateRequest;
use milepost_proto::mvccpb::Event;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::words::{Environment, Wish};
use crate::call::Call;
use crate::child;
use crate::frame::{Flag, Flags, Group, Spec};
use crate::go::quote;
use crate::out;
use crate::outcome::{Failure, Outcome, exit};
use crate::print::{Answer, Printer};
use crate::range::widened;
use crate::words::argify;

/// The command.
pub const COMMAND: Spec = Spec {
    name: "watch",
    usage: "watch [options] [key or prefix] [range_end] [--] [exec-command arg1 arg2 ...]",
    short: "Shows changes of a key, or of a range of keys, as they happen",
    long: "Shows changes of a key, or of a range of keys, as they happen, until it is stopped. With a command behind --,\n\
        runs it for each change; ETCD_WATCH_REVISION, ETCD_WATCH_EVENT_TYPE, ETCD_WATCH_KEY and ETCD_WATCH_VALUE tell it\n\
        what has changed. The key can also stand in ETCDCTL_WATCH_KEY, the end of the range in ETCDCTL_WATCH_RANGE_END.",
    example: "  etcdctl watch --prefix services/\n  etcdctl watch config --rev 120 -- sh -c 'echo $ETCD_WATCH_KEY'",
    group: Group::KeyValue,
    flags: &[
        Flag {
            short: Some('i'),
            ..Flag::bool("interactive", "read lines `watch …` and `progress` from standard input")
        },
        Flag::bool("prefix", "all keys that begin with <key>"),
        Flag::int("rev", "0", "begin with this revision; 0: from now on"),
        Flag::bool("prev-kv", "show what was there before each change"),
        Flag::bool("progress-notify", "say from time to time how far the server is, when nothing happens"),
    ],
    run: Some(|call| Box::pin(run(call))),
    ..Spec::NEW
};

async fn run(mut call: Call) -> Outcome {
    call.own_variables = Environment::NAMES;
    let environment = Environment::read()?;
    if call.flags.bool("interactive") {
        return interactive(call, &environment).await;
    }
    let wish = words::typed(&call.raw, &call.args, &environment)?;
    let (client, printer) = call.connect().await?;
    let request = request(&call.flags, &wish)?;
    show(client.watches(true).add(request), printer, wish.command).await?;
    Err(Failure::new(exit::INTERRUPTED, "watch is canceled by the server"))
}

/// Reads lines until standard input ends, which etcdctl takes for a mistake.
async fn interactive(mut call: Call, environment: &Environment) -> Outcome {
    let (client, printer) = call.connect().await?;
    // One stream for all: `progress` asks for all of them.
    let mut watches = client.watches(true);
    let mut lines = standard_input();
    let mut shows = JoinSet::new();
    loop {
        let line = tokio::select! {
            line = lines.recv() => line,
            Some(shown) = shows.join_next() => {
                // One that ended by itself leaves the others alone; one whose command failed ends everything.
                shown.map_err(|error| Failure::new(exit::ERROR, error.to_string()))??;
                continue;
            }
        };
        let Some(line) = line else {
            return Err(Failure::new(exit::INVALID_INPUT, "error reading watch request line: EOF"));
        };
        if let Some((watcher, command)) = obey(&line, environment, &mut watches)? {
            shows.spawn(show(watcher, printer, command));
        }
    }
}

/// Does what a line says; a line that cannot be obeyed is complained about.
fn obey(line: &[u8], environment: &Environment, watches: &mut Watches) -> Outcome<Option<(Watcher, Vec<Vec<u8>>)>> {
    let shown = String::from_utf8_lossy(line);
    let words = argify(line)?;
    let Some((first, rest)) = words.split_first() else {
        out::complain(format_args!("Invalid command: {shown} (watch and progress supported)"));
        return Ok(None);
    };
    match first.as_slice() {
        b"watch" if rest.is_empty() && environment.key.is_empty() => {
            out::complain(format_args!("Invalid command {shown} (command type or key is not provided)"));
        }
        b"watch" => {
            let (flags, wish) = words::read(rest, environment)?;
            match request(&flags, &wish) {
                Ok(request) => return Ok(Some((watches.add(request), wish.command))),
                Err(failure) => {
                    let why = failure.text.unwrap_or_default();
                    out::complain(format_args!("Invalid command {shown} ({why})"));
                }
            }
        }
        b"progress" => watches.request_progress(),
        _ => out::complain(format_args!("Invalid command {shown} (only support watch)")),
    }
    Ok(None)
}

fn request(flags: &Flags, wish: &Wish) -> Outcome<WatchCreateRequest> {
    let Some(key) = wish.args.first() else { return Err(Failure::args(words::NUMBER)) };
    let prefix = flags.bool("prefix");
    let end = match wish.args.as_slice() {
        [_, _] if prefix => return Err(Failure::args("`range_end` and `--prefix` are mutually exclusive")),
        [_, end] => Some(end.clone()),
        // Further words are passed over, and then the second one too: so does etcdctl.
        _ => None,
    };
    let (key, prefix_end) = widened(key, prefix, false);
    Ok(WatchCreateRequest {
        key: key.into(),
        range_end: end.unwrap_or(prefix_end).into(),
        start_revision: flags.int("rev"),
        prev_kv: flags.bool("prev-kv"),
        progress_notify: flags.bool("progress-notify"),
        ..WatchCreateRequest::default()
    })
}

/// Prints what `watcher` hears and runs `command` for each change, until the watcher ends.
async fn show(mut watcher: Watcher, printer: Printer, command: Vec<Vec<u8>>) -> Outcome {
    while let Some(update) = watcher.next().await {
        if let Some(error) = update.error() {
            out::complain(format_args!("watch was canceled ({error})"));
        }
        let revision = update.response.header.as_ref().map_or(0, |header| header.revision);
        if update.is_progress() {
            out::line(format_args!("progress notify: {revision}"))?;
        }
        printer.show(Answer::Watch(&update.response))?;
        if !command.is_empty() {
            tell(&command, &update, revision).await?;
        }
    }
    Ok(())
}

async fn tell(command: &[Vec<u8>], update: &Update, revision: i64) -> Outcome {
    for event in &update.response.events {
        if let Err(failed) = child::run(command, variables(event, revision)).await {
            out::complain(format_args!("command {} error ({})", child::quoted(command), failed.text));
            return Err(Failure::silent(exit::ERROR));
        }
    }
    Ok(())
}

/// What a command is told of a change. Texts are in quotes, as etcdctl has them.
fn variables(event: &Event, revision: i64) -> Vec<(&'static str, Vec<u8>)> {
    let (key, value) = event.kv.as_ref().map_or((&[][..], &[][..]), |kv| (&kv.key[..], &kv.value[..]));
    vec![
        ("ETCD_WATCH_REVISION", revision.to_string().into_bytes()),
        ("ETCD_WATCH_EVENT_TYPE", quote(event.r#type().as_str_name().as_bytes()).into_bytes()),
        ("ETCD_WATCH_KEY", quote(key).into_bytes()),
        ("ETCD_WATCH_VALUE", quote(value).into_bytes()),
    ]
}

/// The lines of standard input, without their ends; what follows the last newline is no line. A thread reads them, for a
/// terminal cannot be awaited.
fn standard_input() -> mpsc::Receiver<Vec<u8>> {
    let (sender, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        let mut input = io::stdin().lock();
        loop {
            let mut line = Vec::new();
            let read = input.read_until(b'\n', &mut line);
            if read.is_err() || line.pop() != Some(b'\n') || sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}
