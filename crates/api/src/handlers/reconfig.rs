//! `--strict-reconfig-check`: changes of membership that would cost the cluster its quorum, refused before they are
//! proposed. Source: etcd `mayAddMember`, `mayRemoveMember`, `mayPromoteMember`.

use std::time::Duration;

use milepost_machine::{Error, Member, Membership};
use milepost_node::log::Value;
use milepost_types::MemberId;

use crate::door::Door;
use crate::status::{self, Status};

/// How long a member must have been connected to count. Source: etcd `HealthInterval`.
const HEALTHY_FOR: Duration = Duration::from_secs(5);

/// May `added` join?
///
/// # Errors
/// Too few voters have ever started, or too few are connected to this member.
pub(crate) fn may_add(door: &Door, added: &Member) -> Result<(), Status> {
    if !door.config.strict_reconfig {
        return Ok(());
    }
    let membership = door.reader().membership();
    let subject = || ("requested-member-add", Value::from(as_go_prints(added)));
    if !added.is_learner
        && let Err(why) = membership.check_add_voter()
    {
        return Err(refuse(door, "rejecting member add request; not enough healthy members", subject(), why.into()));
    }
    // The new one counts as one that cannot be reached, a learner too; a lone member may always get another.
    let voters = membership.voters().count();
    if voters != 1 && door.connected(membership.voters(), HEALTHY_FOR) < quorum(voters + 1) {
        let message = "rejecting member add request; local member has not been connected to majority peers, reconfigure breaks active quorum";
        return Err(refuse(door, message, subject(), status::UNHEALTHY));
    }
    Ok(())
}

/// May this member be removed?
///
/// # Errors
/// As [`may_add`].
pub(crate) fn may_remove(door: &Door, id: MemberId) -> Result<(), Status> {
    if !door.config.strict_reconfig {
        return Ok(());
    }
    let membership = door.reader().membership();
    match membership.check_remove(id) {
        // Who is no member costs no quorum; that it is none is said when the change is applied.
        Ok(()) | Err(Error::MemberNotFound) => {}
        Err(why) => {
            let message = "rejecting member remove request; not enough healthy members";
            return Err(refuse(door, message, ("requested-member-remove-id", id.to_string().into()), why.into()));
        }
    }
    let is_voter = membership.voters().any(|voter| voter.id == id);
    let is_down = id.0 != door.backend.standing().member_id && door.config.colleagues.active_for(id).is_none();
    if !is_voter || is_down {
        return Ok(());
    }
    check_active(door, &membership, id)
}

/// A voter that is connected goes: the rest must have a quorum by itself.
fn check_active(door: &Door, membership: &Membership, id: MemberId) -> Result<(), Status> {
    let voters = membership.voters().count();
    let active = door.connected(membership.voters(), HEALTHY_FOR);
    if active.saturating_sub(1) < quorum(voters.saturating_sub(1)) {
        let message = "rejecting member remove request; local member has not been connected to all peers, reconfigure breaks active quorum";
        return Err(refuse(door, message, ("requested-member-remove", id.to_string().into()), status::UNHEALTHY));
    }
    Ok(())
}

/// May this learner have a vote, as far as the others are concerned?
///
/// # Errors
/// Too few voters have ever started.
pub(crate) fn may_promote(door: &Door, id: MemberId) -> Result<(), Status> {
    if !door.config.strict_reconfig {
        return Ok(());
    }
    door.reader().membership().check_promote().map_err(|why| {
        // The field's name is etcd's.
        let subject = ("requested-member-remove-id", id.to_string().into());
        refuse(door, "rejecting member promote request; not enough healthy members", subject, why.into())
    })
}

/// Says so when nothing could be written any more until the new voter is there.
pub(crate) fn warn_of_new_voter(door: &Door, added: &Member) {
    let membership = door.reader().membership();
    let voters = membership.voters().count() + 1;
    if added.is_learner || door.connected(membership.voters(), HEALTHY_FOR) >= quorum(voters) {
        return;
    }
    let fields = [
        ("added-peer-id", Value::from(added.id.to_string())),
        ("added-peer-peer-urls", Value::from(added.peer_urls.clone())),
        ("quorum", Value::from(quorum(voters))),
    ];
    let message = "the quorum rests on a voting member that is about to be added: nothing can be written until it has started; add it with --learner and promote it once it has caught up";
    door.config.log.warn(message, &fields);
}

fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

fn refuse(door: &Door, message: &'static str, subject: (&'static str, Value), why: Status) -> Status {
    let own = MemberId(door.backend.standing().member_id).to_string();
    let fields = [("local-member-id", own.into()), subject, ("error", Value::from(&*why.message))];
    door.config.log.warn(message, &fields);
    why
}

/// A member as Go's `%+v` shows it.
fn as_go_prints(member: &Member) -> String {
    let Member { id, peer_urls, is_learner, name, client_urls } = member;
    format!(
        "{{ID:{id} RaftAttributes:{{PeerURLs:[{}] IsLearner:{is_learner}}} Attributes:{{Name:{name} ClientURLs:[{}]}}}}",
        peer_urls.join(" "),
        client_urls.join(" ")
    )
}
