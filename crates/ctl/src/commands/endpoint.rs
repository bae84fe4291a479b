//! `endpoint`: each server by itself.

use std::rc::Rc;
use std::time::Instant;

use milepost_client::{Client, Code, Config, Deadline, FailedAttempt};
use milepost_proto::etcdserverpb::{
    AlarmRequest, AlarmType, HashKvRequest, MemberListRequest, RangeRequest, StatusRequest,
};
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use crate::call::{Call, connect};
use crate::frame::{Flag, Group, Spec};
use crate::go::show_duration;
use crate::log;
use crate::out;
use crate::outcome::{Failure, Outcome, exit};
use crate::print::{Answer, Health};

/// `--cluster`, of this command's children and of `defrag`.
pub const CLUSTER: Flag = Flag::bool("cluster", "all endpoints that the members advertise, instead of --endpoints");

/// The command.
pub const COMMAND: Spec = Spec {
    name: "endpoint",
    usage: "endpoint <subcommand>",
    short: "Asks each endpoint how it is",
    group: Group::Maintenance,
    inherited: &[CLUSTER],
    children: &[&HEALTH, &STATUS, &HASH_KV],
    ..Spec::NEW
};

const HEALTH: Spec = Spec {
    name: "health",
    usage: "health",
    short: "Tells for each endpoint whether it answers a read that needs the whole cluster",
    run: Some(|call| Box::pin(health(call))),
    ..Spec::NEW
};

const STATUS: Spec = Spec {
    name: "status",
    usage: "status",
    short: "Shows version, sizes, leader and progress of each endpoint",
    long: "Shows version, sizes, leader and progress of each endpoint. The columns of the simple format are: endpoint, id,\n\
        version, storage version, size, size in use, percentage not in use, quota, whether it leads, whether it is a\n\
        learner, Raft term, Raft index, applied Raft index, errors, version to downgrade to, whether a downgrade runs.",
    run: Some(|call| Box::pin(status(call))),
    ..Spec::NEW
};

const HASH_KV: Spec = Spec {
    name: "hashkv",
    usage: "hashkv",
    short: "Shows the hash of each endpoint's keys, to be compared",
    inherited: &[Flag::int("rev", "0", "hash up to this revision (0: the newest)")],
    run: Some(|call| Box::pin(hash_kv(call))),
    ..Spec::NEW
};

/// A client for `endpoint` alone, made from the configuration for all.
///
/// # Errors
/// As [`connect`].
pub async fn alone(config: &Config, endpoint: &str) -> Outcome<Client> {
    connect(Config { endpoints: vec![endpoint.to_owned()], ..config.clone() }).await
}

/// The endpoints that `--cluster` or `--endpoints` names.
///
/// # Errors
/// The members could not be asked for.
pub async fn endpoints(call: &mut Call) -> Outcome<Vec<String>> {
    let (config, _) = call.settle().await?;
    if !call.flags.bool("cluster") {
        return Ok(call.listed_endpoints());
    }
    let client = connect(config).await.map_err(|failure| Failure { code: exit::ERROR, ..failure })?;
    let request = MemberListRequest { linearizable: true };
    let answer = client.cluster().member_list(request, call.deadline()).await.map_err(|error| {
        let text = format!("failed to fetch endpoints from etcd cluster member list: {error}");
        Failure::new(exit::ERROR, text)
    })?;
    Ok(answer.members.into_iter().flat_map(|member| member.client_ur_ls).collect())
}

async fn health(mut call: Call) -> Outcome {
    let (mut config, printer) = call.settle().await?;
    config.watcher = Some(std::sync::Arc::new(|failed: &FailedAttempt<'_>| log::failed_attempt_of("client", failed)));
    let endpoints = endpoints(&mut call).await?;
    let call = Rc::new(call);
    let (sender, mut receiver) = mpsc::unbounded_channel();
    // All at once; they are shown as they answer.
    let asking = LocalSet::new();
    for endpoint in endpoints {
        let (call, sender, config) = (call.clone(), sender.clone(), config.clone());
        asking.spawn_local(async move {
            let health = health_of(&call, &config, endpoint).await;
            let _ = sender.send(health);
        });
    }
    drop(sender);
    asking.await;
    let mut all = Vec::new();
    while let Ok(health) = receiver.try_recv() {
        all.push(health?);
    }
    let ill = all.iter().any(|health| !health.error.is_empty());
    printer.show(Answer::EndpointHealth(&all))?;
    if ill { Err(Failure::new(exit::ERROR, "unhealthy cluster")) } else { Ok(()) }
}

async fn health_of(call: &Call, config: &Config, endpoint: String) -> Outcome<Health> {
    let mut health = Health { endpoint, healthy: false, took: String::new(), error: String::new() };
    let client = match alone(config, &health.endpoint).await {
        Ok(client) => client,
        Err(failure) if failure.code == exit::BAD_CONNECTION => {
            health.error = failure.text.unwrap_or_default();
            return Ok(health);
        }
        Err(failure) => return Err(failure),
    };
    let deadline = call.deadline();
    let began = Instant::now();
    // Any key: a linearizable read is answered only by a member that hears a majority.
    let read = RangeRequest { key: "health".into(), ..RangeRequest::default() };
    let answer = client.kv().range(read, deadline).await;
    health.took = show_duration(began.elapsed());
    match answer {
        Err(error) if error.code() != Code::PermissionDenied => {
            health.error = error.to_string();
            return Ok(health);
        }
        // A member that refuses us by its rules has asked the cluster for them.
        _ => health.error = alarms(&client, deadline).await,
    }
    health.healthy = health.error.is_empty();
    Ok(health)
}

/// What is wrong by alarms; empty if nothing.
async fn alarms(client: &Client, deadline: Deadline) -> String {
    let Ok(answer) = client.maintenance().alarm(AlarmRequest::default(), deadline).await else {
        return "Unable to fetch the alarm list".to_owned();
    };
    if answer.alarms.is_empty() {
        return String::new();
    }
    let name = |alarm: i32| match AlarmType::try_from(alarm) {
        Ok(AlarmType::Nospace) => "NOSPACE ",
        Ok(AlarmType::Corrupt) => "CORRUPT ",
        _ => "UNKNOWN ",
    };
    let names: String = answer.alarms.iter().map(|alarm| name(alarm.alarm)).collect();
    format!("Active Alarm(s): {names}")
}

async fn status(mut call: Call) -> Outcome {
    let (config, printer) = call.settle().await?;
    let mut all = Vec::new();
    let mut failed = false;
    for endpoint in endpoints(&mut call).await? {
        let client = alone(&config, &endpoint).await?;
        match client.maintenance().status(StatusRequest {}, call.deadline()).await {
            Ok(answer) => all.push((endpoint, answer)),
            Err(error) => {
                out::complain(format_args!("Failed to get the status of endpoint {endpoint} ({error})"));
                failed = true;
            }
        }
    }
    printer.show(Answer::EndpointStatus(&all))?;
    if failed { Err(Failure::silent(exit::ERROR)) } else { Ok(()) }
}

async fn hash_kv(mut call: Call) -> Outcome {
    let (config, printer) = call.settle().await?;
    let revision = call.flags.int("rev");
    let mut all = Vec::new();
    let mut failed = None;
    for endpoint in endpoints(&mut call).await? {
        let client = alone(&config, &endpoint).await?;
        match client.maintenance().hash_kv(HashKvRequest { revision }, call.deadline()).await {
            Ok(answer) => all.push((endpoint, answer)),
            Err(error) => {
                out::complain(format_args!("Failed to get the hash of endpoint {endpoint} ({error})"));
                failed = Some(error);
            }
        }
    }
    printer.show(Answer::EndpointHashKv(&all))?;
    failed.map_or(Ok(()), |error| Err(Failure::rpc(error)))
}
