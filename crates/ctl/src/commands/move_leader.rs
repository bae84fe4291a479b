//! `move-leader`: another member is to lead.

use milepost_proto::etcdserverpb::{MoveLeaderRequest, StatusRequest};

use super::endpoint::alone;
use crate::call::Call;
use crate::frame::{Group, Spec};
use crate::go::parse_uint;
use crate::outcome::{Failure, Outcome};
use crate::print::Answer;

/// The command.
pub const COMMAND: Spec = Spec {
    name: "move-leader",
    usage: "move-leader <transferee-member-id>",
    short: "Makes another member the leader",
    group: Group::Maintenance,
    run: Some(|call| Box::pin(run(call))),
    ..Spec::NEW
};

async fn run(mut call: Call) -> Outcome {
    let [target] = call.args.as_slice() else {
        return Err(Failure::args("move-leader command needs 1 argument"));
    };
    let target_id = parse_uint(&String::from_utf8_lossy(target), 16).map_err(Failure::args)?;
    let (client, printer) = call.connect().await?;
    let (config, _) = call.settle().await?;
    let deadline = call.deadline();
    // Only the leader can hand over.
    for endpoint in client.endpoints() {
        let client = alone(&config, endpoint).await?;
        let status = client.maintenance().status(StatusRequest {}, deadline).await.map_err(Failure::rpc)?;
        if status.header.is_some_and(|header| header.member_id == status.leader) {
            let answer = client.maintenance().move_leader(MoveLeaderRequest { target_id }, deadline).await;
            let answer = answer.map_err(Failure::rpc)?;
            return printer.show(Answer::MoveLeader(status.leader, target_id, &answer));
        }
    }
    Err(Failure::args(format!("no leader endpoint given at [{}]", client.endpoints().join(" "))))
}
