//! Identities and log positions.

use std::fmt;

macro_rules! position {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

macro_rules! identity {
    ($(#[$doc:meta])* $name:ident($repr:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $repr);

        impl fmt::Display for $name {
            /// Lower-case hexadecimal without prefix, as etcd logs and prints it.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

position! {
    /// Raft term. Zero: no term yet.
    Term
}
position! {
    /// Position in the replicated log; the first entry has 1. Zero: before the first entry.
    LogIndex
}
identity! {
    /// A member of the cluster. Zero: nobody.
    MemberId(u64)
}
identity! {
    /// The cluster, fixed at its bootstrap.
    ClusterId(u64)
}
identity! {
    /// A lease. Zero: no lease. Clients may choose negative ones.
    LeaseId(i64)
}

impl LogIndex {
    /// The position after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
