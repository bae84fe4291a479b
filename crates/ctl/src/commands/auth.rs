//! `auth`: whether users and permissions count.

use milepost_proto::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthStatusRequest, AuthUserGrantRoleRequest,
};

use crate::call::Call;
use crate::frame::{Group, Spec};
use crate::out;
use crate::outcome::{Failure, Outcome};
use crate::print::Answer;

/// The command.
pub const COMMAND: Spec = Spec {
    name: "auth",
    usage: "auth <enable or disable>",
    short: "Turns authentication on and off",
    group: Group::Authentication,
    children: &[&ENABLE, &DISABLE, &STATUS],
    ..Spec::NEW
};

const ENABLE: Spec = Spec {
    name: "enable",
    usage: "enable",
    short: "Turns authentication on; a user root must exist",
    run: Some(|call| Box::pin(enable(call))),
    ..Spec::NEW
};

const DISABLE: Spec = Spec {
    name: "disable",
    usage: "disable",
    short: "Turns authentication off",
    run: Some(|call| Box::pin(disable(call))),
    ..Spec::NEW
};

const STATUS: Spec = Spec {
    name: "status",
    usage: "status",
    short: "Shows whether authentication is on",
    run: Some(|call| Box::pin(status(call))),
    ..Spec::NEW
};

async fn enable(mut call: Call) -> Outcome {
    no_arguments(&call, "enable")?;
    let (client, _) = call.connect().await?;
    let (auth, deadline) = (client.auth(), call.deadline());
    loop {
        match auth.auth_enable(AuthEnableRequest {}, deadline).await {
            Ok(_) => return out::line(format_args!("Authentication Enabled")),
            // The role root is made for users who did not know that it must be given.
            Err(error) if error.is("root user does not have root role") => {
                let role = AuthRoleAddRequest { name: "root".to_owned() };
                auth.role_add(role, deadline).await.map_err(Failure::rpc)?;
                let grant = AuthUserGrantRoleRequest { user: "root".to_owned(), role: "root".to_owned() };
                auth.user_grant_role(grant, deadline).await.map_err(Failure::rpc)?;
            }
            Err(error) => return Err(Failure::rpc(error)),
        }
    }
}

async fn disable(mut call: Call) -> Outcome {
    no_arguments(&call, "disable")?;
    let (client, _) = call.connect().await?;
    client.auth().auth_disable(AuthDisableRequest {}, call.deadline()).await.map_err(Failure::rpc)?;
    out::line(format_args!("Authentication Disabled"))
}

async fn status(mut call: Call) -> Outcome {
    no_arguments(&call, "status")?;
    let (client, printer) = call.connect().await?;
    let answer = client.auth().auth_status(AuthStatusRequest {}, call.deadline()).await;
    printer.show(Answer::AuthStatus(&answer.map_err(Failure::rpc)?))
}

fn no_arguments(call: &Call, name: &str) -> Outcome {
    if call.args.is_empty() {
        return Ok(());
    }
    Err(Failure::args(format!("auth {name} command does not accept any arguments")))
}
