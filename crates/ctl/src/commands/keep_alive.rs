//! `lease keep-alive`: a lease that does not run out.

use milepost_client::Deadline;

use super::lease::lease_id;
use crate::call::Call;
use crate::frame::{Flag, Spec};
use crate::out;
use crate::outcome::{Failure, Outcome, exit};
use crate::print::{Answer, Format};

/// The command, below `lease`.
pub const COMMAND: Spec = Spec {
    name: "keep-alive",
    usage: "keep-alive [options] <leaseID>",
    short: "Renews a lease until it is stopped, or the lease ends",
    flags: &[Flag::bool("once", "renew it once")],
    run: Some(|call| Box::pin(run(call))),
    ..Spec::NEW
};

async fn run(mut call: Call) -> Outcome {
    let [id] = call.args.as_slice() else {
        return Err(Failure::args("lease keep-alive command needs lease ID as argument"));
    };
    let id = lease_id(id)?;
    let (client, printer) = call.connect().await?;
    if call.flags.bool("once") {
        let answer = client.keep_alive_once(id, Deadline::NEVER).await;
        let answer = answer.map_err(|error| Failure::new(exit::BAD_CONNECTION, error.to_string()))?;
        return printer.show(Answer::KeepAlive(&answer));
    }
    let mut answers = client.keep_alive(id);
    while let Some(answer) = answers.next().await {
        printer.show(Answer::KeepAlive(&answer))?;
    }
    if printer.format == Format::Simple {
        out::line(format_args!("lease {id:016x} expired or revoked."))?;
    }
    Ok(())
}
