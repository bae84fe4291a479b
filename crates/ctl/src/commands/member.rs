//! `member`: who is in the cluster.

use milepost_proto::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberPromoteRequest, MemberRemoveRequest,
    MemberUpdateRequest,
};

use super::get;
use crate::call::Call;
use crate::frame::{Flag, Group, Spec};
use crate::go::{parse_uint, quote};
use crate::out;
use crate::outcome::{Failure, Outcome, exit};
use crate::print::{Answer, Format};
use crate::urls;

/// The command.
pub const COMMAND: Spec = Spec {
    name: "member",
    usage: "member <subcommand>",
    short: "Shows, adds, changes and removes members",
    group: Group::Maintenance,
    children: &[&ADD, &REMOVE, &UPDATE, &LIST, &PROMOTE],
    ..Spec::NEW
};

const ADD: Spec = Spec {
    name: "add",
    usage: "add <memberName> [options]",
    short: "Adds a member, and prints the variables to start it with",
    flags: &[
        Flag::text("peer-urls", "", "where the others will reach the new member, separated by commas"),
        Flag::bool("learner", "a member that does not vote until it is promoted"),
    ],
    run: Some(|call| Box::pin(add(call))),
    ..Spec::NEW
};

const REMOVE: Spec = Spec {
    name: "remove",
    usage: "remove <memberID>",
    short: "Removes a member",
    run: Some(|call| Box::pin(remove(call))),
    ..Spec::NEW
};

const UPDATE: Spec = Spec {
    name: "update",
    usage: "update <memberID> [options]",
    short: "Changes where a member is reached by the others",
    flags: &[Flag::text("peer-urls", "", "where the others will reach the member, separated by commas")],
    run: Some(|call| Box::pin(update(call))),
    ..Spec::NEW
};

const LIST: Spec = Spec {
    name: "list",
    usage: "list",
    short: "Shows all members",
    long: "Shows all members. The columns of the simple format are: id, whether it has ever started, name, peer URLs,\n\
        client URLs, whether it is a learner.",
    flags: &[Flag::text("consistency", "l", "l: what the cluster agrees on; s: what the asked member knows")],
    run: Some(|call| Box::pin(list(call))),
    ..Spec::NEW
};

const PROMOTE: Spec = Spec {
    name: "promote",
    usage: "promote <memberID>",
    short: "Makes a learner a member that votes",
    run: Some(|call| Box::pin(promote(call))),
    ..Spec::NEW
};

async fn add(mut call: Call) -> Outcome {
    let name = match call.args.as_slice() {
        [] => return Err(Failure::args("member name not provided")),
        [name] => String::from_utf8_lossy(name).into_owned(),
        many => return Err(Failure::args(too_many(many))),
    };
    let urls = peer_urls(&call)?;
    let is_learner = call.flags.bool("learner");
    let (client, printer) = call.connect().await?;
    urls::check(&urls).map_err(|why| Failure::new(exit::ERROR, why))?;
    let request = MemberAddRequest { peer_ur_ls: urls, is_learner };
    let answer = client.cluster().member_add(request, call.deadline()).await.map_err(Failure::rpc)?;
    printer.show(Answer::MemberAdd(&answer))?;
    if printer.format == Format::Simple {
        tell_variables(&name, call.flags.text("peer-urls"), &answer)?;
    }
    if let Some(id) = bottleneck(&answer) {
        out::complain(format_args!(
            "Warning: the quorum now rests on member {id:x}: nothing can be written until it has started. \
             A member added with --learner does not count before it is promoted (etcdctl member promote {id:x})."
        ));
    }
    Ok(())
}

/// The new member, if it is a voter and those that have started are no quorum without it.
fn bottleneck(answer: &MemberAddResponse) -> Option<u64> {
    let new = answer.member.as_ref().filter(|new| !new.is_learner)?.id;
    let voters = || answer.members.iter().filter(|member| !member.is_learner);
    let started = voters().filter(|member| member.id != new && !member.name.is_empty()).count();
    (started <= voters().count() / 2).then_some(new)
}

fn too_many(args: &[Vec<u8>]) -> String {
    let urls = args.iter().filter(|arg| arg.to_ascii_lowercase().starts_with(b"http"));
    let hints = urls.map(|url| format!(", did you mean --peer-urls={}", String::from_utf8_lossy(url)));
    format!("too many arguments{}", hints.collect::<String>())
}

/// What the new member's server is to be started with.
fn tell_variables(name: &str, urls: &str, answer: &MemberAddResponse) -> Outcome {
    let new = answer.member.as_ref().map_or(0, |member| member.id);
    let named = |member: &Member| if member.id == new { name.to_owned() } else { member.name.clone() };
    let pairs = answer
        .members
        .iter()
        .flat_map(|member| member.peer_ur_ls.iter().map(move |url| format!("{}={url}", named(member))));
    let cluster: Vec<String> = pairs.collect();
    out::line(format_args!(
        "\nETCD_NAME={}\nETCD_INITIAL_CLUSTER={}\nETCD_INITIAL_ADVERTISE_PEER_URLS={}\n\
         ETCD_INITIAL_CLUSTER_STATE=\"existing\"",
        quote(name.as_bytes()),
        quote(cluster.join(",").as_bytes()),
        quote(urls.as_bytes())
    ))
}

async fn remove(mut call: Call) -> Outcome {
    let id = member_id(&call.args)?;
    let (client, printer) = call.connect().await?;
    let answer = client.cluster().member_remove(MemberRemoveRequest { id }, call.deadline()).await;
    printer.show(Answer::MemberRemove(id, &answer.map_err(Failure::rpc)?))
}

async fn update(mut call: Call) -> Outcome {
    let id = member_id(&call.args)?;
    let urls = peer_urls(&call)?;
    let (client, printer) = call.connect().await?;
    urls::check(&urls).map_err(|why| Failure::new(exit::ERROR, why))?;
    let request = MemberUpdateRequest { id, peer_ur_ls: urls };
    let answer = client.cluster().member_update(request, call.deadline()).await.map_err(Failure::rpc)?;
    printer.show(Answer::MemberUpdate(id, &answer))
}

async fn list(mut call: Call) -> Outcome {
    let linearizable = !get::serializable(&call.flags)?;
    let (client, printer) = call.connect().await?;
    let answer = client.cluster().member_list(MemberListRequest { linearizable }, call.deadline()).await;
    printer.show(Answer::MemberList(&answer.map_err(Failure::rpc)?))
}

async fn promote(mut call: Call) -> Outcome {
    let id = member_id(&call.args)?;
    let (client, printer) = call.connect().await?;
    let answer = client.cluster().member_promote(MemberPromoteRequest { id }, call.deadline()).await;
    printer.show(Answer::MemberPromote(id, &answer.map_err(Failure::rpc)?))
}

fn member_id(args: &[Vec<u8>]) -> Outcome<u64> {
    let [id] = args else { return Err(Failure::args("member ID is not provided")) };
    parse_uint(&String::from_utf8_lossy(id), 16)
        .map_err(|why| Failure::args(format!("bad member ID arg ({why}), expecting ID in Hex")))
}

fn peer_urls(call: &Call) -> Outcome<Vec<String>> {
    match call.flags.text("peer-urls") {
        "" => Err(Failure::args("member peer urls not provided")),
        urls => Ok(urls.split(',').map(str::to_owned).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `s` a started voter, `n` one that never started, `l` a learner; the last is new.
    fn added(kinds: &str) -> MemberAddResponse {
        let member = |(id, kind): (u64, char)| Member {
            id,
            name: if kind == 's' { "name".into() } else { String::new() },
            is_learner: kind == 'l',
            ..Member::default()
        };
        let members: Vec<Member> = (1..).zip(kinds.chars()).map(member).collect();
        MemberAddResponse { header: None, member: members.last().cloned(), members }
    }

    #[test]
    fn a_voter_without_which_nothing_goes_is_named() {
        for (kinds, named) in [("sn", Some(2)), ("ssn", None), ("snn", Some(3)), ("sssn", None), ("ssnn", Some(4))] {
            assert_eq!(bottleneck(&added(kinds)), named, "{kinds}");
        }
        for kinds in ["sl", "snl", "l"] {
            assert_eq!(bottleneck(&added(kinds)), None, "{kinds}");
        }
    }
}
