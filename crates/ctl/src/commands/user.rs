//! `user`: who may call.

use milepost_client::{Client, Deadline};
use milepost_proto::authpb::UserAddOptions;
use milepost_proto::etcdserverpb::{
    AuthRoleGetRequest, AuthUserAddRequest, AuthUserChangePasswordRequest, AuthUserDeleteRequest, AuthUserGetRequest,
    AuthUserGrantRoleRequest, AuthUserListRequest, AuthUserRevokeRoleRequest,
};

use crate::call::Call;
use crate::frame::{Flag, Group, Spec};
use crate::out;
use crate::outcome::{Failure, Outcome};
use crate::password;
use crate::print::{Answer, Printer};

/// The command.
pub const COMMAND: Spec = Spec {
    name: "user",
    usage: "user <subcommand>",
    short: "Adds, changes, shows and deletes users",
    group: Group::Authentication,
    children: &[&ADD, &DELETE, &GET, &LIST, &PASSWD, &GRANT_ROLE, &REVOKE_ROLE],
    ..Spec::NEW
};

const INTERACTIVE: Flag = Flag {
    default: "true",
    ..Flag::bool("interactive", "ask for the password; if false, it is the first word of stdin")
};

const ADD: Spec = Spec {
    name: "add",
    usage: "add <user name or user:password> [options]",
    short: "Adds a user",
    flags: &[
        INTERACTIVE,
        Flag::text("new-user-password", "", "the password, in sight of whoever sees this command line"),
        Flag::bool("no-password", "a user whom only a certificate can name"),
    ],
    run: Some(|call| Box::pin(add(call))),
    ..Spec::NEW
};

const DELETE: Spec = Spec {
    name: "delete",
    usage: "delete <user name>",
    short: "Deletes a user",
    run: Some(|call| Box::pin(delete(call))),
    ..Spec::NEW
};

const GET: Spec = Spec {
    name: "get",
    usage: "get <user name> [options]",
    short: "Shows a user's roles",
    flags: &[Flag::bool("detail", "show what each of the roles permits")],
    run: Some(|call| Box::pin(get(call))),
    ..Spec::NEW
};

const LIST: Spec =
    Spec { name: "list", usage: "list", short: "Shows all users", run: Some(|call| Box::pin(list(call))), ..Spec::NEW };

const PASSWD: Spec = Spec {
    name: "passwd",
    usage: "passwd <user name> [options]",
    short: "Gives a user another password",
    flags: &[INTERACTIVE],
    run: Some(|call| Box::pin(passwd(call))),
    ..Spec::NEW
};

const GRANT_ROLE: Spec = Spec {
    name: "grant-role",
    usage: "grant-role <user name> <role name>",
    short: "Gives a role to a user",
    run: Some(|call| Box::pin(grant_role(call))),
    ..Spec::NEW
};

const REVOKE_ROLE: Spec = Spec {
    name: "revoke-role",
    usage: "revoke-role <user name> <role name>",
    short: "Takes a role from a user",
    run: Some(|call| Box::pin(revoke_role(call))),
    ..Spec::NEW
};

async fn add(mut call: Call) -> Outcome {
    let [arg] = names(&call, "user add command requires user name as its argument")?;
    let given = call.flags.text("new-user-password");
    let no_password = call.flags.bool("no-password");
    let (user, password) = match arg.split_once(':') {
        _ if no_password => (arg.clone(), String::new()),
        _ if !given.is_empty() => (arg.clone(), given.to_owned()),
        Some(("", _)) => return Err(Failure::args("empty user name is not allowed")),
        Some((user, password)) => (user.to_owned(), password.to_owned()),
        None => (arg.clone(), new_password(&call, &arg)?),
    };
    let (client, printer) = call.connect().await?;
    let request = AuthUserAddRequest {
        name: user.clone(),
        password,
        options: Some(UserAddOptions { no_password }),
        ..AuthUserAddRequest::default()
    };
    let answer = client.auth().user_add(request, Deadline::NEVER).await.map_err(Failure::rpc)?;
    printer.show(Answer::UserAdd(&user, &answer))
}

async fn delete(mut call: Call) -> Outcome {
    let [user] = names(&call, "user delete command requires user name as its argument")?;
    let (client, printer) = call.connect().await?;
    let request = AuthUserDeleteRequest { name: user.clone() };
    let answer = client.auth().user_delete(request, Deadline::NEVER).await.map_err(Failure::rpc)?;
    printer.show(Answer::UserDelete(&user, &answer))
}

async fn get(mut call: Call) -> Outcome {
    let [user] = names(&call, "user get command requires user name as its argument")?;
    let (client, printer) = call.connect().await?;
    let request = AuthUserGetRequest { name: user.clone() };
    let answer = client.auth().user_get(request, Deadline::NEVER).await.map_err(Failure::rpc)?;
    if call.flags.bool("detail") {
        out::line(format_args!("User: {user}"))?;
        return details(&client, &printer, &answer.roles).await;
    }
    printer.show(Answer::UserGet(&user, &answer))
}

async fn details(client: &Client, printer: &Printer, roles: &[String]) -> Outcome {
    for role in roles {
        out::line(format_args!(""))?;
        let request = AuthRoleGetRequest { role: role.clone() };
        let answer = client.auth().role_get(request, Deadline::NEVER).await.map_err(Failure::rpc)?;
        printer.show(Answer::RoleGet(role, &answer))?;
    }
    Ok(())
}

async fn list(mut call: Call) -> Outcome {
    if !call.args.is_empty() {
        return Err(Failure::args("user list command requires no arguments"));
    }
    let (client, printer) = call.connect().await?;
    let answer = client.auth().user_list(AuthUserListRequest {}, Deadline::NEVER).await.map_err(Failure::rpc)?;
    printer.show(Answer::UserList(&answer))
}

async fn passwd(mut call: Call) -> Outcome {
    let [user] = names(&call, "user passwd command requires user name as its argument")?;
    let password = new_password(&call, &user)?;
    let (client, printer) = call.connect().await?;
    let request = AuthUserChangePasswordRequest { name: user, password, ..AuthUserChangePasswordRequest::default() };
    let answer = client.auth().user_change_password(request, Deadline::NEVER).await.map_err(Failure::rpc)?;
    printer.show(Answer::UserPasswd(&answer))
}

async fn grant_role(mut call: Call) -> Outcome {
    let [user, role] = names(&call, "user grant command requires user name and role name as its argument")?;
    let (client, printer) = call.connect().await?;
    let request = AuthUserGrantRoleRequest { user: user.clone(), role: role.clone() };
    let answer = client.auth().user_grant_role(request, Deadline::NEVER).await.map_err(Failure::rpc)?;
    printer.show(Answer::UserGrantRole(&user, &role, &answer))
}

async fn revoke_role(mut call: Call) -> Outcome {
    let [user, role] = names(&call, "user revoke-role requires user name and role name as its argument")?;
    let (client, printer) = call.connect().await?;
    let request = AuthUserRevokeRoleRequest { name: user.clone(), role: role.clone() };
    let answer = client.auth().user_revoke_role(request, Deadline::NEVER).await.map_err(Failure::rpc)?;
    printer.show(Answer::UserRevokeRole(&user, &role, &answer))
}

/// Exactly `N` arguments; otherwise `complaint`.
pub fn names<const N: usize>(call: &Call, complaint: &str) -> Outcome<[String; N]> {
    let names: Vec<String> = call.args.iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect();
    names.try_into().map_err(|_| Failure::args(complaint))
}

/// A password for `user`: asked for twice, or the first word of standard input.
fn new_password(call: &Call, user: &str) -> Outcome<String> {
    if !call.flags.bool("interactive") {
        return Ok(password::first_word());
    }
    let ask =
        |prompt: String| password::ask(&prompt)?.map_err(|why| Failure::args(format!("failed to ask password: {why}")));
    let first = ask(format!("Password of {user}: "))?;
    if first.is_empty() {
        return Err(Failure::args("empty password"));
    }
    let second = ask(format!("Type password of {user} again for confirmation: "))?;
    if first != second {
        return Err(Failure::args("given passwords are different"));
    }
    Ok(first)
}
