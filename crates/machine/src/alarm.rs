//! Alarms: who raised which, and what they forbid.
//!
//! Table `alarm`: key = encoded `AlarmMember`, no value, as etcd's bucket has it. Alarms are replicated state and
//! survive restarts; the ones in force decide whether entries are applied. Source: `facts/apply-semantics.md` §5.

use std::collections::{BTreeMap, BTreeSet};

use milepost_proto::Message;
use milepost_proto::etcdserverpb::{AlarmMember, AlarmType};
use milepost_types::MemberId;

use crate::error::Fatal;
use crate::hex;

/// The alarms in force, sorted by kind, then member. (etcd lists them in chance order.)
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Alarms {
    set: BTreeSet<(i32, MemberId)>,
}

impl Alarms {
    pub(crate) fn load(table: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<Self, Fatal> {
        let mut alarms = Self::default();
        for key in table.keys() {
            let alarm = AlarmMember::decode(&key[..]).map_err(|e| Fatal::BrokenRecord {
                table: "alarm",
                key: hex(key),
                why: e.to_string(),
            })?;
            alarms.raise(MemberId(alarm.member_id), alarm.alarm);
        }
        Ok(alarms)
    }

    /// Key of its record.
    pub(crate) fn key(member: MemberId, alarm: i32) -> Vec<u8> {
        AlarmMember { member_id: member.0, alarm }.encode_to_vec()
    }

    /// Is an alarm of this kind in force, whoever raised it?
    #[must_use]
    pub fn any(&self, kind: AlarmType) -> bool {
        self.set.range((kind as i32, MemberId(0))..=(kind as i32, MemberId(u64::MAX))).next().is_some()
    }

    /// Alarms of one kind; `None` (the kind of that name) = all of them.
    #[must_use]
    pub fn list(&self, kind: i32) -> Vec<AlarmMember> {
        let wanted = |alarm: i32| kind == AlarmType::None as i32 || alarm == kind;
        let all = self.set.iter().filter(|(alarm, _)| wanted(*alarm));
        all.map(|&(alarm, member)| AlarmMember { member_id: member.0, alarm }).collect()
    }

    /// True if it was not in force yet.
    pub(crate) fn raise(&mut self, member: MemberId, alarm: i32) -> bool {
        self.set.insert((alarm, member))
    }

    /// True if it was in force.
    pub(crate) fn clear(&mut self, member: MemberId, alarm: i32) -> bool {
        self.set.remove(&(alarm, member))
    }
}

#[cfg(test)]
mod tests {
    use super::{AlarmMember, AlarmType, Alarms};
    use milepost_types::MemberId;

    #[test]
    fn records_and_lists() {
        let (nospace, corrupt) = (AlarmType::Nospace as i32, AlarmType::Corrupt as i32);
        let keys =
            [Alarms::key(MemberId(2), corrupt), Alarms::key(MemberId(9), nospace), Alarms::key(MemberId(1), nospace)];
        assert_eq!(keys[1], [8, 9, 16, 1]);
        let mut alarms = Alarms::load(&keys.into_iter().map(|key| (key, vec![])).collect()).unwrap();
        assert_eq!(alarms.list(0).iter().map(|alarm| alarm.member_id).collect::<Vec<_>>(), [1, 9, 2]);
        assert_eq!(alarms.list(corrupt), [AlarmMember { member_id: 2, alarm: corrupt }]);
        assert!(alarms.clear(MemberId(2), corrupt) && !alarms.clear(MemberId(2), corrupt));
        assert!(!alarms.any(AlarmType::Corrupt) && alarms.any(AlarmType::Nospace));
        assert!(!alarms.raise(MemberId(9), nospace));
        assert!(Alarms::load(&[(vec![0xff], vec![])].into()).is_err());
    }
}
