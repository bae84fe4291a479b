//! `downgrade`: the cluster is prepared for servers of the version before.

use milepost_proto::etcdserverpb::{DowngradeRequest, downgrade_request::DowngradeAction};

use crate::call::Call;
use crate::frame::{Group, Spec};
use crate::outcome::{Failure, Outcome};
use crate::print::Answer;

/// The command.
pub const COMMAND: Spec = Spec {
    name: "downgrade",
    usage: "downgrade <TARGET_VERSION>",
    short: "Prepares the cluster for servers of the version before",
    group: Group::Maintenance,
    children: &[&VALIDATE, &ENABLE, &CANCEL],
    ..Spec::NEW
};

const VALIDATE: Spec = Spec {
    name: "validate",
    usage: "validate <TARGET_VERSION>",
    short: "Tells whether a downgrade would be possible",
    run: Some(|call| Box::pin(to_version(call, "validate", DowngradeAction::Validate))),
    ..Spec::NEW
};

const ENABLE: Spec = Spec {
    name: "enable",
    usage: "enable <TARGET_VERSION>",
    short: "Begins a downgrade",
    run: Some(|call| Box::pin(to_version(call, "enable", DowngradeAction::Enable))),
    ..Spec::NEW
};

const CANCEL: Spec = Spec {
    name: "cancel",
    usage: "cancel",
    short: "Gives up a downgrade that was begun",
    run: Some(|call| Box::pin(ask(call, "cancel", DowngradeAction::Cancel, String::new()))),
    ..Spec::NEW
};

async fn to_version(call: Call, name: &'static str, action: DowngradeAction) -> Outcome {
    let version = match call.args.as_slice() {
        [] => return Err(Failure::args("TARGET_VERSION not provided")),
        [version] if version.is_empty() => return Err(Failure::args("target version not provided")),
        [version] => String::from_utf8_lossy(version).into_owned(),
        _ => return Err(Failure::args("too many arguments")),
    };
    ask(call, name, action, version).await
}

async fn ask(mut call: Call, name: &'static str, action: DowngradeAction, version: String) -> Outcome {
    let (client, printer) = call.connect().await?;
    let request = DowngradeRequest { action: action as i32, version };
    let answer = client.maintenance().downgrade(request, call.deadline()).await.map_err(Failure::rpc)?;
    printer.show(Answer::Downgrade(name, &answer))
}
