//! What a member does whose disk is nearly full.
//!
//! The NOSPACE alarm refuses everybody's writes. That is right for a member on which the cluster rests: a lone voter, or a
//! leader for which nobody else can stand in. Of several voters one with a full disk is to suffer alone: it gives leadership
//! away and goes on as long as its room lasts, then its log waits for more, and the others form the quorum. If leadership
//! comes back soon, the others are no better off (they fill their disks at the same pace): then the alarm is raised.

use crate::core::Role;
use std::time::Duration;

/// A hand-over that has not moved leadership after so many election timeouts has failed: the crate gives it one.
const HAND_OVER_TIMEOUTS: u32 = 3;
/// Who leads again within this time after a hand-over got leadership back from members that are short of room, too.
const RECENT: Duration = Duration::from_secs(60);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Nothing,
    /// Room has become little, or is there again: say so.
    Tell {
        is_low: bool,
    },
    /// Give leadership to another voter, if one is there.
    HandOver,
    /// Refuse the cluster's writes.
    RaiseAlarm,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Space {
    told_low: bool,
    handed_over: Option<Duration>,
}

impl Space {
    /// At each tick. `voters` counts this member if it is one.
    pub fn tick(
        &mut self,
        now: Duration,
        is_low: bool,
        role: Role,
        voters: usize,
        election_timeout: Duration,
    ) -> Verdict {
        if std::mem::replace(&mut self.told_low, is_low) != is_low {
            return Verdict::Tell { is_low };
        }
        if !is_low || role != Role::Leader {
            return Verdict::Nothing;
        }
        if voters < 2 {
            return Verdict::RaiseAlarm;
        }
        match self.handed_over.map(|at| now.saturating_sub(at)) {
            Some(since) if since < election_timeout * HAND_OVER_TIMEOUTS => Verdict::Nothing,
            Some(since) if since < RECENT => Verdict::RaiseAlarm,
            _ => Verdict::HandOver,
        }
    }

    /// Somebody was asked to take over.
    pub fn handed_over(&mut self, now: Duration) {
        self.handed_over = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ELECTION: Duration = Duration::from_secs(1);

    fn at(space: &mut Space, seconds: u64, is_low: bool, role: Role, voters: usize) -> Verdict {
        space.tick(Duration::from_secs(seconds), is_low, role, voters, ELECTION)
    }

    #[test]
    fn a_lone_voter_raises_the_alarm() {
        let mut space = Space::default();
        assert_eq!(at(&mut space, 0, false, Role::Leader, 1), Verdict::Nothing);
        assert_eq!(at(&mut space, 1, true, Role::Leader, 1), Verdict::Tell { is_low: true });
        assert_eq!(at(&mut space, 2, true, Role::Leader, 1), Verdict::RaiseAlarm);
        assert_eq!(at(&mut space, 3, false, Role::Leader, 1), Verdict::Tell { is_low: false });
        assert_eq!(at(&mut space, 4, false, Role::Leader, 1), Verdict::Nothing);
    }

    #[test]
    fn a_follower_suffers_alone() {
        let mut space = Space::default();
        assert_eq!(at(&mut space, 0, true, Role::Follower, 3), Verdict::Tell { is_low: true });
        for seconds in 1..200 {
            assert_eq!(at(&mut space, seconds, true, Role::Follower, 3), Verdict::Nothing);
        }
    }

    #[test]
    fn a_leader_hands_over_once_in_a_while() {
        let mut space = Space::default();
        assert_eq!(at(&mut space, 0, true, Role::Leader, 3), Verdict::Tell { is_low: true });
        assert_eq!(at(&mut space, 0, true, Role::Leader, 3), Verdict::HandOver);
        assert_eq!(at(&mut space, 1, true, Role::Leader, 3), Verdict::HandOver, "nobody was there");
        space.handed_over(Duration::from_secs(1));
        assert_eq!(at(&mut space, 3, true, Role::Leader, 3), Verdict::Nothing, "it is under way");
        assert_eq!(at(&mut space, 5, true, Role::Follower, 3), Verdict::Nothing);
        assert_eq!(at(&mut space, 62, true, Role::Leader, 3), Verdict::HandOver, "that was long ago");
    }

    #[test]
    fn leadership_that_comes_back_raises_the_alarm() {
        let mut space = Space::default();
        at(&mut space, 0, true, Role::Leader, 3);
        space.handed_over(Duration::ZERO);
        assert_eq!(at(&mut space, 1, true, Role::Follower, 3), Verdict::Nothing);
        assert_eq!(at(&mut space, 2, true, Role::Leader, 3), Verdict::Nothing, "it may still be under way");
        assert_eq!(at(&mut space, 4, true, Role::Leader, 3), Verdict::RaiseAlarm);
    }
}
