//! `lock`: a lock by name, held while a command runs or until we are stopped.

use milepost_client::{Client, Deadline, Error, Mutex, Session};
use milepost_proto::etcdserverpb::RangeRequest;

use crate::call::Call;
use crate::child;
use crate::frame::{Flag, Group, Spec};
use crate::outcome::{Failure, Outcome, exit};
use crate::print::{Answer, Printer};
use crate::signals::Stop;

/// The command.
pub const COMMAND: Spec = Spec {
    name: "lock",
    usage: "lock <lockname> [exec-command arg1 arg2 ...]",
    short: "Waits for a lock, and holds it while a command runs or until it is stopped",
    long: "Waits for a lock, and holds it while a command runs or until it is stopped. The command finds the lock's key and\n\
        the revision at which it was won in ETCD_LOCK_KEY and ETCD_LOCK_REV, and its exit code becomes ours. Put -- before\n\
        a command that has flags of its own.",
    group: Group::Concurrency,
    flags: &[Flag::int("ttl", "10", "the lock is lost when nothing was heard of us for so many seconds")],
    run: Some(|call| Box::pin(run(call))),
    ..Spec::NEW
};

async fn run(mut call: Call) -> Outcome {
    let Some((name, command)) = call.args.split_first() else {
        return Err(Failure::args("lock takes a lock name argument and an optional command to execute"));
    };
    let (name, command) = (name.clone(), command.to_vec());
    let (client, printer) = call.connect().await?;
    let session = Session::new(&client, call.flags.int("ttl")).await.map_err(Failure::rpc)?;
    let mut stop = Stop::new()?;
    let mut mutex = Mutex::new(&session, &name);
    let won = tokio::select! {
        won = mutex.lock() => won.map_err(Failure::rpc),
        () = stop.asked() => Err(Failure::rpc(Error::canceled())),
    };
    if let Err(failure) = won {
        // Our place in the queue is given back; that we were stopped is what there is to tell.
        let _ = mutex.unlock().await;
        return Err(failure);
    }
    if command.is_empty() {
        return hold(&client, &session, &mut mutex, &mut stop, printer).await;
    }
    let ran = child::run(&command, variables(&mutex)).await;
    let unlocked = mutex.unlock().await;
    ran.map_err(|failed| Failure::new(failed.code.unwrap_or(exit::ERROR), failed.text))?;
    unlocked.map_err(Failure::rpc)
}

fn variables(mutex: &Mutex<'_>) -> Vec<(&'static str, Vec<u8>)> {
    let revision = mutex.header().map_or(0, |header| header.revision);
    vec![("ETCD_LOCK_KEY", mutex.key().to_vec()), ("ETCD_LOCK_REV", revision.to_string().into_bytes())]
}

/// Shows the key, and holds the lock until we are stopped.
async fn hold(client: &Client, session: &Session, mutex: &mut Mutex<'_>, stop: &mut Stop, printer: Printer) -> Outcome {
    let request = RangeRequest { key: mutex.key().clone(), ..RangeRequest::default() };
    let answer = client.kv().range(request, Deadline::NEVER).await.map_err(Failure::rpc)?;
    if answer.kvs.is_empty() {
        return Err(Failure::new(exit::ERROR, "lock lost on init"));
    }
    printer.show(Answer::Get(&answer))?;
    tokio::select! {
        () = stop.asked() => mutex.unlock().await.map_err(Failure::rpc),
        () = session.ended() => Err(Failure::new(exit::ERROR, "session expired")),
    }
}
