//! Questions that only the leader can answer, asked for a client of this member. Source: etcd `EtcdServer.LeaseRenew`,
//! `leaseTimeToLive`, `PromoteMember`, `waitLeader`.

use std::rc::Rc;
use std::time::{Duration, Instant};

use milepost_types::MemberId;

use crate::colleagues::{Asked, Unheard};
use crate::door::Door;
use crate::status::{self, Status};

/// Questions that one door has under way: each has a connection for as long as it takes.
pub(crate) const AT_ONCE: usize = 32;
/// How long to wait before a leader is looked for or asked again. Source: etcd `LeaseRenew`.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// What came of asking.
pub(crate) enum Heard<T> {
    /// The leader's answer.
    Answer(T),
    /// This member leads by now.
    IsOurselves,
}

/// Does this member lead, as far as it knows?
pub(crate) fn is_ourselves(door: &Door) -> bool {
    let standing = door.backend.standing();
    standing.leader == standing.member_id
}

/// Asks the leader until it answers, somebody refuses for good, or `until`. `refusal` knows the refusals that no other
/// attempt would change.
///
/// # Errors
/// Such a refusal; no leader was known until the end; nobody answered until then.
pub(crate) async fn ask<T>(
    door: &Rc<Door>,
    until: Instant,
    ask: impl Fn(&[String]) -> Asked<T>,
    refusal: impl Fn(&Unheard) -> Option<Status>,
) -> Result<Heard<T>, Status> {
    loop {
        let Some(urls) = peer_urls(door, until).await? else { return Ok(Heard::IsOurselves) };
        let answer = async {
            let _place = door.forwards.acquire().await;
            ask(&urls).await
        };
        match tokio::time::timeout_at(until.into(), answer).await {
            Err(_) => return Err(status::TIMEOUT),
            Ok(Ok(answer)) => return Ok(Heard::Answer(answer)),
            Ok(Err(why)) => {
                if let Some(status) = refusal(&why) {
                    return Err(status);
                }
            }
        }
        pause(door, until, status::TIMEOUT).await?;
    }
}

/// Where the leader is reached; `None`: here. Waits until one is known.
async fn peer_urls(door: &Rc<Door>, until: Instant) -> Result<Option<Vec<String>>, Status> {
    loop {
        if is_ourselves(door) {
            return Ok(None);
        }
        let leader = MemberId(door.backend.standing().leader);
        if let Some(member) = door.reader().membership().members.get(&leader) {
            return if member.peer_urls.is_empty() {
                Err(status::NO_LEADER)
            } else {
                Ok(Some(member.peer_urls.clone()))
            };
        }
        pause(door, until, status::NO_LEADER).await?;
    }
}

/// Waits a moment; `late` if it is later than `until` then.
pub(crate) async fn pause(door: &Rc<Door>, until: Instant, late: Status) -> Result<(), Status> {
    if door.is_stopping.get() {
        return Err(status::STOPPED);
    }
    if Instant::now() >= until {
        return Err(late);
    }
    tokio::time::sleep(PAUSE).await;
    Ok(())
}
