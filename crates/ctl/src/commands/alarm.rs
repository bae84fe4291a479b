//! `alarm`: what made the cluster refuse writes or reads.

use milepost_proto::etcdserverpb::{AlarmRequest, AlarmResponse, alarm_request::AlarmAction};

use crate::call::Call;
use crate::frame::{Group, Spec};
use crate::outcome::{Failure, Outcome};
use crate::print::Answer;

/// The command.
pub const COMMAND: Spec = Spec {
    name: "alarm",
    usage: "alarm <subcommand>",
    short: "Shows and ends alarms",
    group: Group::Maintenance,
    children: &[&DISARM, &LIST],
    ..Spec::NEW
};

const DISARM: Spec = Spec {
    name: "disarm",
    usage: "disarm",
    short: "Ends all alarms",
    run: Some(|call| Box::pin(disarm(call))),
    ..Spec::NEW
};

const LIST: Spec = Spec {
    name: "list",
    usage: "list",
    short: "Shows all alarms",
    run: Some(|call| Box::pin(list(call))),
    ..Spec::NEW
};

/// All members, all alarms.
const ALL: AlarmRequest = AlarmRequest { action: AlarmAction::Get as i32, member_id: 0, alarm: 0 };

async fn disarm(mut call: Call) -> Outcome {
    if !call.args.is_empty() {
        return Err(Failure::args("alarm disarm command accepts no arguments"));
    }
    let (client, printer) = call.connect().await?;
    let deadline = call.deadline();
    let on = client.maintenance().alarm(ALL, deadline).await.map_err(Failure::rpc)?;
    let mut ended = AlarmResponse::default();
    for alarm in on.alarms {
        let request =
            AlarmRequest { action: AlarmAction::Deactivate as i32, member_id: alarm.member_id, alarm: alarm.alarm };
        let answer = client.maintenance().alarm(request, deadline).await.map_err(Failure::rpc)?;
        ended.alarms.extend(answer.alarms);
    }
    printer.show(Answer::Alarm(&ended))
}

async fn list(mut call: Call) -> Outcome {
    if !call.args.is_empty() {
        return Err(Failure::args("alarm list command accepts no arguments"));
    }
    let (client, printer) = call.connect().await?;
    let answer = client.maintenance().alarm(ALL, call.deadline()).await.map_err(Failure::rpc)?;
    printer.show(Answer::Alarm(&answer))
}
