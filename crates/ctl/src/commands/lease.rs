//! `lease`: times to live that keys can be tied to.

use milepost_client::Deadline;
use milepost_proto::etcdserverpb::{LeaseGrantRequest, LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest};

use super::keep_alive;
use crate::call::Call;
use crate::frame::{Flag, Group, Spec};
use crate::go::parse_int;
use crate::outcome::{Failure, Outcome, exit};
use crate::print::Answer;

/// The command.
pub const COMMAND: Spec = Spec {
    name: "lease",
    usage: "lease <subcommand>",
    short: "Grants, renews, shows and ends leases",
    group: Group::KeyValue,
    children: &[&GRANT, &REVOKE, &TIME_TO_LIVE, &LIST, &keep_alive::COMMAND],
    ..Spec::NEW
};

const GRANT: Spec = Spec {
    name: "grant",
    usage: "grant <ttl>",
    short: "Makes a lease of so many seconds",
    run: Some(|call| Box::pin(grant(call))),
    ..Spec::NEW
};

const REVOKE: Spec = Spec {
    name: "revoke",
    usage: "revoke <leaseID>",
    short: "Ends a lease and deletes its keys",
    run: Some(|call| Box::pin(revoke(call))),
    ..Spec::NEW
};

const TIME_TO_LIVE: Spec = Spec {
    name: "timetolive",
    usage: "timetolive <leaseID> [options]",
    short: "Shows what is left of a lease",
    flags: &[Flag::bool("keys", "show its keys too")],
    run: Some(|call| Box::pin(time_to_live(call))),
    ..Spec::NEW
};

const LIST: Spec = Spec {
    name: "list",
    usage: "list",
    short: "Shows the ids of all leases",
    run: Some(|call| Box::pin(list(call))),
    ..Spec::NEW
};

async fn grant(mut call: Call) -> Outcome {
    let [ttl] = call.args.as_slice() else {
        return Err(Failure::args("lease grant command needs TTL argument"));
    };
    let ttl = parse_int(&String::from_utf8_lossy(ttl), 10);
    let ttl = ttl.map_err(|why| Failure::args(format!("bad TTL ({why})")))?;
    let (client, printer) = call.connect().await?;
    let answer = client.lease().grant(LeaseGrantRequest { ttl, id: 0 }, call.deadline()).await;
    let answer = answer.map_err(|error| Failure::new(exit::ERROR, format!("failed to grant lease ({error})")))?;
    printer.show(Answer::Grant(&answer))
}

async fn revoke(mut call: Call) -> Outcome {
    let [id] = call.args.as_slice() else {
        return Err(Failure::args("lease revoke command needs 1 argument"));
    };
    let id = lease_id(id)?;
    let (client, printer) = call.connect().await?;
    let answer = client.lease().revoke(LeaseRevokeRequest { id }, call.deadline()).await;
    let answer = answer.map_err(|error| Failure::new(exit::ERROR, format!("failed to revoke lease ({error})")))?;
    printer.show(Answer::Revoke(id, &answer))
}

async fn time_to_live(mut call: Call) -> Outcome {
    let [id] = call
        .args
        .clone()
        .try_into()
        .map_err(|_: Vec<Vec<u8>>| Failure::args("lease timetolive command needs lease ID as argument"))?;
    let keys = call.flags.bool("keys");
    let (client, printer) = call.connect().await?;
    let id = lease_id(&id)?;
    let answer = client.lease().time_to_live(LeaseTimeToLiveRequest { id, keys }, Deadline::NEVER).await;
    let answer = answer.map_err(|error| Failure::new(exit::BAD_CONNECTION, error.to_string()))?;
    printer.show(Answer::TimeToLive(&answer, keys))
}

async fn list(mut call: Call) -> Outcome {
    let (client, printer) = call.connect().await?;
    let answer = client.lease().leases(LeaseLeasesRequest {}, Deadline::NEVER).await;
    let answer = answer.map_err(|error| Failure::new(exit::BAD_CONNECTION, error.to_string()))?;
    printer.show(Answer::Leases(&answer))
}

/// A lease's id as people write it: hexadecimal.
///
/// # Errors
/// It is not.
pub fn lease_id(arg: &[u8]) -> Outcome<i64> {
    parse_int(&String::from_utf8_lossy(arg), 16)
        .map_err(|why| Failure::args(format!("bad lease ID arg ({why}), expecting ID in Hex")))
}
