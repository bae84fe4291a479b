//! `defrag`: servers give free space back to their file systems.

use std::time::Instant;

use milepost_proto::etcdserverpb::DefragmentRequest;

use super::endpoint;
use crate::call::Call;
use crate::frame::{Group, Spec};
use crate::go::show_duration;
use crate::out;
use crate::outcome::{Failure, Outcome, exit};

/// The command.
pub const COMMAND: Spec = Spec {
    name: "defrag",
    usage: "defrag",
    short: "Gives free space of the servers' stores back to their file systems",
    group: Group::Maintenance,
    inherited: &[endpoint::CLUSTER],
    run: Some(|call| Box::pin(run(call))),
    ..Spec::NEW
};

async fn run(mut call: Call) -> Outcome {
    let (config, _) = call.settle().await?;
    let mut failed = false;
    for endpoint in endpoint::endpoints(&mut call).await? {
        let client = endpoint::alone(&config, &endpoint).await?;
        let began = Instant::now();
        let answer = client.maintenance().defragment(DefragmentRequest {}, call.deadline()).await;
        let took = show_duration(began.elapsed());
        match answer {
            Ok(_) => out::line(format_args!("Finished defragmenting etcd member[{endpoint}]. took {took}"))?,
            Err(error) => {
                out::complain(format_args!("Failed to defragment etcd member[{endpoint}]. took {took}. ({error})"));
                failed = true;
            }
        }
    }
    if failed { Err(Failure::silent(exit::ERROR)) } else { Ok(()) }
}
