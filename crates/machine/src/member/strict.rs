//! `--strict-reconfig-check`: changes of membership that would leave a cluster without a quorum of members that ever
//! started. Asked before proposing, never at apply. Source: `facts/rpc-semantics.md` §4; etcd `IsReadyToAddVotingMember`
//! and its sisters. (The other half of the check, who is connected now, is the transport's to know.)

use milepost_types::MemberId;

use super::Membership;
use crate::error::Error;

impl Membership {
    /// May a voter be added? A single started member may always get a second one: that is how a cluster is restored.
    ///
    /// # Errors
    /// [`Error::NotEnoughStarted`].
    pub fn check_add_voter(&self) -> Result<(), Error> {
        let (voters, started) = self.count_voters(None);
        if (started, voters) == (1, 1) { Ok(()) } else { quorum(voters + 1, started) }
    }

    /// May this member be removed? Learners always.
    ///
    /// # Errors
    /// [`Error::MemberNotFound`], [`Error::NotEnoughStarted`].
    pub fn check_remove(&self, id: MemberId) -> Result<(), Error> {
        let member = self.members.get(&id).ok_or(Error::MemberNotFound)?;
        if member.is_learner {
            return Ok(());
        }
        let (voters, started) = self.count_voters(Some(id));
        quorum(voters, started)
    }

    /// May a learner be promoted? It counts as started. Whether it is a learner, and has caught up, is asked elsewhere.
    ///
    /// # Errors
    /// [`Error::NotEnoughStarted`].
    pub fn check_promote(&self) -> Result<(), Error> {
        let (voters, started) = self.count_voters(None);
        quorum(voters + 1, started + 1)
    }

    /// Voters, and how many of them have started, `except` one.
    fn count_voters(&self, except: Option<MemberId>) -> (usize, usize) {
        let voters = || self.voters().filter(|member| Some(member.id) != except);
        (voters().count(), voters().filter(|member| member.is_started()).count())
    }
}

fn quorum(voters: usize, started: usize) -> Result<(), Error> {
    if started > voters / 2 { Ok(()) } else { Err(Error::NotEnoughStarted) }
}

#[cfg(test)]
mod tests {
    use super::super::Member;
    use super::*;

    /// `s` a started voter, `n` one that never started, `l` a learner; ids count from 1.
    fn cluster(kinds: &str) -> Membership {
        let member = |(id, kind): (u64, char)| {
            let name = if kind == 's' { "name".to_owned() } else { String::new() };
            let member = Member { id: MemberId(id), is_learner: kind == 'l', name, ..Member::default() };
            (member.id, member)
        };
        Membership { members: (1..).zip(kinds.chars()).map(member).collect(), ..Membership::default() }
    }

    #[test]
    fn a_quorum_must_have_started() {
        let refused = Err(Error::NotEnoughStarted);
        assert_eq!(cluster("s").check_add_voter(), Ok(()));
        assert_eq!(cluster("sn").check_add_voter(), refused);
        assert_eq!(cluster("ss").check_add_voter(), Ok(()));
        assert_eq!(cluster("ssn").check_add_voter(), refused);
        assert_eq!(cluster("sssl").check_add_voter(), Ok(()));

        assert_eq!(cluster("sn").check_remove(MemberId(2)), Ok(()));
        assert_eq!(cluster("sn").check_remove(MemberId(1)), refused);
        assert_eq!(cluster("ssn").check_remove(MemberId(1)), refused);
        assert_eq!(cluster("s").check_remove(MemberId(1)), refused);
        assert_eq!(cluster("snl").check_remove(MemberId(3)), Ok(()));
        assert_eq!(cluster("s").check_remove(MemberId(9)), Err(Error::MemberNotFound));

        assert_eq!(cluster("sl").check_promote(), Ok(()));
        assert_eq!(cluster("snl").check_promote(), Ok(()));
        assert_eq!(cluster("snnl").check_promote(), refused);
    }
}
