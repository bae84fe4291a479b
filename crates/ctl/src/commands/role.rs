//! `role`: what may be done with which keys.

use milepost_client::Deadline;
use milepost_proto::authpb::{Permission, permission::Type};
use milepost_proto::etcdserverpb::{
    AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGetRequest, AuthRoleGrantPermissionRequest, AuthRoleListRequest,
    AuthRoleRevokePermissionRequest,
};

use super::user::names;
use crate::call::Call;
use crate::frame::{Flag, Flags, Group, Spec};
use crate::outcome::{Failure, Outcome};
use crate::print::Answer;
use crate::range::{OPEN_END, prefix_end};

/// The command.
pub const COMMAND: Spec = Spec {
    name: "role",
    usage: "role <subcommand>",
    short: "Adds, changes, shows and deletes roles",
    group: Group::Authentication,
    children: &[&ADD, &DELETE, &GET, &LIST, &GRANT, &REVOKE],
    ..Spec::NEW
};

const ADD: Spec = Spec {
    name: "add",
    usage: "add <role name>",
    short: "Adds a role",
    run: Some(|call| Box::pin(add(call))),
    ..Spec::NEW
};

const DELETE: Spec = Spec {
    name: "delete",
    usage: "delete <role name>",
    short: "Deletes a role",
    run: Some(|call| Box::pin(delete(call))),
    ..Spec::NEW
};

const GET: Spec = Spec {
    name: "get",
    usage: "get <role name>",
    short: "Shows what a role permits",
    run: Some(|call| Box::pin(get(call))),
    ..Spec::NEW
};

const LIST: Spec =
    Spec { name: "list", usage: "list", short: "Shows all roles", run: Some(|call| Box::pin(list(call))), ..Spec::NEW };

const GRANT: Spec = Spec {
    name: "grant-permission",
    usage: "grant-permission [options] <role name> <permission type> <key> [endkey]",
    short: "Lets a role read, write or readwrite a key or a range of keys",
    flags: &[
        Flag::bool("prefix", "all keys that begin with <key>"),
        Flag::bool("from-key", "all keys from <key> on, in byte order"),
    ],
    run: Some(|call| Box::pin(grant(call))),
    ..Spec::NEW
};

const REVOKE: Spec = Spec {
    name: "revoke-permission",
    usage: "revoke-permission <role name> <key> [endkey]",
    short: "Takes a permission back, for exactly the keys it was granted for",
    flags: &[
        Flag::bool("prefix", "all keys that begin with <key>"),
        Flag::bool("from-key", "all keys from <key> on, in byte order"),
    ],
    run: Some(|call| Box::pin(revoke(call))),
    ..Spec::NEW
};

async fn add(mut call: Call) -> Outcome {
    let [role] = names(&call, "role add command requires role name as its argument")?;
    let (client, printer) = call.connect().await?;
    let request = AuthRoleAddRequest { name: role.clone() };
    let answer = client.auth().role_add(request, Deadline::NEVER).await.map_err(Failure::rpc)?;
    printer.show(Answer::RoleAdd(&role, &answer))
}

async fn delete(mut call: Call) -> Outcome {
    let [role] = names(&call, "role delete command requires role name as its argument")?;
    let (client, printer) = call.connect().await?;
    let request = AuthRoleDeleteRequest { role: role.clone() };
    let answer = client.auth().role_delete(request, Deadline::NEVER).await.map_err(Failure::rpc)?;
    printer.show(Answer::RoleDelete(&role, &answer))
}

async fn get(mut call: Call) -> Outcome {
    let [role] = names(&call, "role get command requires role name as its argument")?;
    let (client, printer) = call.connect().await?;
    let request = AuthRoleGetRequest { role: role.clone() };
    let answer = client.auth().role_get(request, Deadline::NEVER).await.map_err(Failure::rpc)?;
    printer.show(Answer::RoleGet(&role, &answer))
}

async fn list(mut call: Call) -> Outcome {
    if !call.args.is_empty() {
        return Err(Failure::args("role list command requires no arguments"));
    }
    let (client, printer) = call.connect().await?;
    let answer = client.auth().role_list(AuthRoleListRequest {}, Deadline::NEVER).await.map_err(Failure::rpc)?;
    printer.show(Answer::RoleList(&answer))
}

async fn grant(mut call: Call) -> Outcome {
    let [role, kind, range @ ..] = call.args.as_slice() else { return Err(too_few_to_grant()) };
    if range.is_empty() {
        return Err(too_few_to_grant());
    }
    let role = String::from_utf8_lossy(role).into_owned();
    let perm_type = permission_type(&String::from_utf8_lossy(kind))? as i32;
    let (key, range_end) = granted_range(&call.flags, range)?;
    let (client, printer) = call.connect().await?;
    let perm = Permission { perm_type, key: key.into(), range_end: range_end.into() };
    let request = AuthRoleGrantPermissionRequest { name: role.clone(), perm: Some(perm) };
    let answer = client.auth().role_grant_permission(request, Deadline::NEVER).await.map_err(Failure::rpc)?;
    printer.show(Answer::RoleGrant(&role, &answer))
}

fn too_few_to_grant() -> Failure {
    Failure::args("role grant command requires role name, permission type, and key [endkey] as its argument")
}

fn permission_type(text: &str) -> Outcome<Type> {
    match text.to_uppercase().as_str() {
        "READ" => Ok(Type::Read),
        "WRITE" => Ok(Type::Write),
        "READWRITE" => Ok(Type::Readwrite),
        _ => Err(Failure::args(format!("invalid permission type: {text}"))),
    }
}

async fn revoke(mut call: Call) -> Outcome {
    let too_few = "role revoke-permission command requires role name and key [endkey] as its argument";
    let [role, range @ ..] = call.args.as_slice() else { return Err(Failure::args(too_few)) };
    let Some(shown) = range.first().cloned() else { return Err(Failure::args(too_few)) };
    let role = String::from_utf8_lossy(role).into_owned();
    let (key, range_end) = granted_range(&call.flags, range)?;
    let (client, printer) = call.connect().await?;
    let request =
        AuthRoleRevokePermissionRequest { role: role.clone(), key: key.into(), range_end: range_end.clone().into() };
    let answer = client.auth().role_revoke_permission(request, Deadline::NEVER).await.map_err(Failure::rpc)?;
    printer.show(Answer::RoleRevoke(&role, &shown, &range_end, &answer))
}

/// Key and end of a permission. The empty key is `\0`: the empty one cannot be granted.
fn granted_range(flags: &Flags, args: &[Vec<u8>]) -> Outcome<(Vec<u8>, Vec<u8>)> {
    let (prefix, from_key) = (flags.bool("prefix"), flags.bool("from-key"));
    let exclusive = || Failure::args("--from-key and --prefix flags are mutually exclusive");
    Ok(match args {
        [key, ..] if key.is_empty() => {
            if prefix && from_key {
                return Err(exclusive());
            }
            let end = if prefix || from_key { OPEN_END.to_vec() } else { Vec::new() };
            (OPEN_END.to_vec(), end)
        }
        [_] if prefix && from_key => return Err(exclusive()),
        [key] if prefix => (key.clone(), prefix_end(key)),
        [key] if from_key => (key.clone(), OPEN_END.to_vec()),
        [key] => (key.clone(), Vec::new()),
        _ if prefix => return Err(Failure::args("unexpected endkey argument with --prefix flag")),
        _ if from_key => return Err(Failure::args("unexpected endkey argument with --from-key flag")),
        [key, end, ..] => (key.clone(), end.clone()),
        [] => (Vec::new(), Vec::new()),
    })
}
