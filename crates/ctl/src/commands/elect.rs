//! `elect`: standing for election, or watching who leads.

use milepost_client::{Client, Deadline, Election, Error, Observer, Session};
use milepost_proto::etcdserverpb::RangeRequest;

use crate::call::Call;
use crate::frame::{Flag, Group, Spec};
use crate::outcome::{Failure, Outcome, exit};
use crate::print::{Answer, Printer};
use crate::signals::Stop;

/// The command.
pub const COMMAND: Spec = Spec {
    name: "elect",
    usage: "elect <election-name> [proposal]",
    short: "Stands for election until it is stopped, or shows who leads",
    long: "With a proposal, waits to be elected, shows the key that leads, and leads until it is stopped. With -l, shows\n\
        every leader from now on.",
    group: Group::Concurrency,
    flags: &[Flag { short: Some('l'), ..Flag::bool("listen", "show who leads, without standing") }],
    run: Some(|call| Box::pin(run(call))),
    ..Spec::NEW
};

/// The session's time to live; 0 is the recipe's own default, a minute.
const TTL_SECONDS: i64 = 0;

async fn run(mut call: Call) -> Outcome {
    let (name, proposal) = match call.args.as_slice() {
        [name] => (name.clone(), None),
        [name, proposal] => (name.clone(), Some(proposal.clone())),
        _ => {
            let text = "elect takes one election name argument and an optional proposal argument";
            return Err(Failure::args(text));
        }
    };
    // etcdctl makes its client before it looks at the flag.
    let (client, printer) = call.connect().await?;
    match (proposal, call.flags.bool("listen")) {
        (None, false) => Err(Failure::args("no proposal argument but -l not set")),
        (Some(_), true) => Err(Failure::args("proposal given but -l is set")),
        (None, true) => observe(&client, &name, printer).await,
        (Some(proposal), false) => campaign(&client, &name, proposal, printer).await,
    }
}

async fn observe(client: &Client, name: &[u8], printer: Printer) -> Outcome {
    let mut stop = Stop::new()?;
    let mut observer = Observer::new(client, name);
    let listen = async {
        while let Some(leader) = observer.next().await {
            printer.show(Answer::Get(&leader))?;
        }
        Err(Failure::new(exit::ERROR, "elect: observer lost"))
    };
    tokio::select! {
        lost = listen => lost,
        () = stop.asked() => Ok(()),
    }
}

async fn campaign(client: &Client, name: &[u8], proposal: Vec<u8>, printer: Printer) -> Outcome {
    let session = Session::new(client, TTL_SECONDS).await.map_err(Failure::rpc)?;
    let mut stop = Stop::new()?;
    let mut election = Election::new(&session, name);
    let elected = tokio::select! {
        elected = election.campaign(proposal.into()) => elected.map_err(Failure::rpc),
        () = stop.asked() => Err(Failure::rpc(Error::canceled())),
    };
    if let Err(failure) = elected {
        // Whoever is stopped while waiting does not stand any longer.
        let _ = election.resign().await;
        return Err(failure);
    }
    let request = RangeRequest { key: election.key().clone(), ..RangeRequest::default() };
    let answer = client.kv().range(request, Deadline::NEVER).await.map_err(Failure::rpc)?;
    printer.show(Answer::Get(&answer))?;
    tokio::select! {
        () = stop.asked() => election.resign().await.map_err(Failure::rpc),
        () = session.ended() => Err(Failure::new(exit::ERROR, "elect: session expired")),
    }
}
