//! `txn`: comparisons, and what to do when they hold or not, read from standard input.

use std::io::{self, BufRead as _};

use milepost_client::Deadline;
use milepost_proto::etcdserverpb::{RequestOp, TxnRequest, request_op::Request};

use super::{del, get, put};
use crate::call::Call;
use crate::compare;
use crate::frame::{self, Flag, Group, Spec};
use crate::out;
use crate::outcome::{Failure, Outcome, exit};
use crate::print::Answer;
use crate::words::argify;

/// The command.
pub const COMMAND: Spec = Spec {
    name: "txn",
    usage: "txn [options]",
    short: "Reads one transaction from standard input and runs it",
    long: "Reads one transaction from standard input and runs it: comparisons, requests for when all of them hold,\n\
        requests for when one does not. An empty line ends each of the three parts.\n\n\
        \x20 mod(\"key\") > \"0\"\n\n\
        \x20 put key \"there it was\"\n\n\
        \x20 put key \"created\"\n\
        \x20 get --prefix ke\n\n\
        A comparison is TARGET(\"key\") OPERATOR \"value\", with spaces around the operator. Targets: ver (version),\n\
        c (create), m (mod), val (value), lease (id in hexadecimal). Operators: =  !=  >  <\n\
        Requests are get, put and del with the flags of these commands.",
    group: Group::KeyValue,
    flags: &[Flag { short: Some('i'), ..Flag::bool("interactive", "say which part comes next") }],
    run: Some(|call| Box::pin(run(call))),
    ..Spec::NEW
};

/// What a line of requests may call.
static LINES: Spec = Spec { children: &[&put::COMMAND, &get::COMMAND, &del::COMMAND], ..Spec::NEW };

async fn run(mut call: Call) -> Outcome {
    if !call.args.is_empty() {
        return Err(Failure::args("txn command does not accept argument"));
    }
    let (client, printer) = call.connect().await?;
    let interactive = call.flags.bool("interactive");
    let prompt = |text: &str| if interactive { out::line(format_args!("{text}")) } else { Ok(()) };
    prompt("compares:")?;
    let mut compares = Vec::new();
    while let Some(line) = next_line()? {
        compares.push(compare::parse(&line).map_err(invalid)?);
    }
    prompt("success requests (get, put, del):")?;
    let success = requests().await?;
    prompt("failure requests (get, put, del):")?;
    let failure = requests().await?;
    let request = TxnRequest { compare: compares, success, failure };
    let answer = client.kv().txn(request, Deadline::NEVER).await.map_err(Failure::rpc)?;
    printer.show(Answer::Txn(&answer))
}

fn invalid(text: String) -> Failure {
    Failure::new(exit::INVALID_INPUT, text)
}

/// The next line without the spaces around it; `None` if nothing is left of it. The end of input comes too early, even
/// behind a line that lacks only its newline.
fn next_line() -> Outcome<Option<Vec<u8>>> {
    let mut line = Vec::new();
    io::stdin().lock().read_until(b'\n', &mut line).map_err(|error| invalid(error.to_string()))?;
    if line.last() != Some(&b'\n') {
        return Err(invalid("EOF".to_owned()));
    }
    let line = line.trim_ascii();
    Ok((!line.is_empty()).then(|| line.to_vec()))
}

async fn requests() -> Outcome<Vec<RequestOp>> {
    let mut requests = Vec::new();
    while let Some(line) = next_line()? {
        requests.push(RequestOp { request: Some(request(&line).await?) });
    }
    Ok(requests)
}

async fn request(line: &[u8]) -> Outcome<Request> {
    let shown = String::from_utf8_lossy(line);
    let words = argify(line)?;
    if words.len() < 2 {
        return Err(invalid(format!("invalid txn compare request: {shown}")));
    }
    let wrong = || invalid(format!("invalid txn request: {shown}"));
    let found = frame::find(&LINES, &words);
    let [_, command] = found.path.as_slice() else { return Err(wrong()) };
    let (flags, args) = frame::parse(&found.path, &found.words).map_err(|_| {
        out::complain(format_args!("{}", frame::page::usage(&found.path)));
        wrong()
    })?;
    if flags.bool("help") {
        return Err(wrong());
    }
    Ok(match command.name {
        "get" => Request::RequestRange(get::request(&flags, &args)?),
        // Standard input holds the transaction, no value.
        "put" => Request::RequestPut(put::request(&flags, &args, || None)?),
        _ => Request::RequestDeleteRange(del::request(&flags, &args).await?),
    })
}
