//! The tables, by name.

/// One ordered table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Every change of the keyspace, by revision.
    History,
    /// The newest record of every key.
    Current,
    /// Keys attached to leases: lease id, then key.
    Attached,
    /// Leases.
    Lease,
    /// Authentication switch and revision.
    Auth,
    /// Users.
    Users,
    /// Roles.
    Roles,
    /// Members of the cluster.
    Members,
    /// Ids of members that were removed.
    Removed,
    /// Alarms.
    Alarm,
    /// Cluster version and downgrade.
    Cluster,
    /// What the store itself must remember.
    Meta,
}

impl Table {
    /// Every table.
    pub const ALL: [Self; 12] = [
        Self::History,
        Self::Current,
        Self::Attached,
        Self::Lease,
        Self::Auth,
        Self::Users,
        Self::Roles,
        Self::Members,
        Self::Removed,
        Self::Alarm,
        Self::Cluster,
        Self::Meta,
    ];

    /// Name on disk.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::History => "history",
            Self::Current => "current",
            Self::Attached => "attached",
            Self::Lease => "lease",
            Self::Auth => "auth",
            Self::Users => "users",
            Self::Roles => "roles",
            Self::Members => "members",
            Self::Removed => "removed",
            Self::Alarm => "alarm",
            Self::Cluster => "cluster",
            Self::Meta => "meta",
        }
    }

    pub(crate) const fn slot(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn slots_follow_the_list() {
        for (slot, table) in Table::ALL.into_iter().enumerate() {
            assert_eq!(table.slot(), slot, "{}", table.name());
        }
    }
}
