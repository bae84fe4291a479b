//! How calls end.

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        /// Outcome of a call, with gRPC's numbers. The name of a variant is the one that grpc-go prints.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Code {
            $($(#[$doc])* $name = $number,)*
        }

        impl Code {
            /// Every code in the order of its number.
            pub const ALL: [Self; 17] = [$(Self::$name,)*];

            /// The name as metrics spell it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    Self::Ok => "OK",
                    $(#[allow(unreachable_patterns, reason = "OK is spelled in capitals")] Self::$name => stringify!($name),)*
                }
            }

            /// The code with this number; a number that gRPC does not know is [`Code::Unknown`].
            #[must_use]
            pub const fn from_number(number: u32) -> Self {
                match number {
                    $($number => Self::$name,)*
                    _ => Self::Unknown,
                }
            }
        }
    };
}

codes! {
    /// No error.
    Ok = 0,
    /// The caller has gone away.
    Canceled = 1,
    /// No better code; etcd uses it for errors that it does not map.
    Unknown = 2,
    /// The request is wrong in itself.
    InvalidArgument = 3,
    /// The caller's deadline has passed.
    DeadlineExceeded = 4,
    /// What is named does not exist.
    NotFound = 5,
    /// Not used by etcd.
    AlreadyExists = 6,
    /// The user may not do that.
    PermissionDenied = 7,
    /// Quota, or a message above the limit.
    ResourceExhausted = 8,
    /// The state of the cluster forbids it.
    FailedPrecondition = 9,
    /// Not used by etcd.
    Aborted = 10,
    /// A revision outside of what is kept.
    OutOfRange = 11,
    /// No such call here.
    Unimplemented = 12,
    /// The caller breaks the protocol, or we do.
    Internal = 13,
    /// Try again, perhaps elsewhere.
    Unavailable = 14,
    /// The cluster knows that members disagree.
    DataLoss = 15,
    /// The token is not valid.
    Unauthenticated = 16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_to_codes_and_back() {
        for (number, code) in (0..).zip(Code::ALL) {
            assert_eq!((code as u32, Code::from_number(number)), (number, code));
        }
        assert_eq!(Code::from_number(17), Code::Unknown, "a number that gRPC does not know");
    }
}
