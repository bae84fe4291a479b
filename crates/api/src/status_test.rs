use std::fmt::Write;

use super::*;

/// Code and text of every row, as `facts/errors.md` §1 has them.
const GOLDEN: &str = "\
3 etcdserver: key is not provided
3 etcdserver: key not found
3 etcdserver: value is provided
3 etcdserver: lease is provided
3 etcdserver: too many operations in txn request
3 etcdserver: duplicate key given in txn request
3 etcdserver: invalid client api version
3 etcdserver: invalid sort option
11 etcdserver: mvcc: required revision has been compacted
11 etcdserver: mvcc: required revision is a future revision
8 etcdserver: mvcc: database space exceeded
5 etcdserver: requested lease not found
9 etcdserver: lease already exists
11 etcdserver: too large lease TTL
9 etcdserver: member ID already exist
9 etcdserver: Peer URLs already exists
5 etcdserver: member not found
9 etcdserver: can only promote a learner member
9 etcdserver: too many learner members in cluster
2 etcdserver: re-configuration failed due to not enough started members
3 etcdserver: given member URLs are invalid
9 etcdserver: can only promote a learner member which is in sync with leader
14 etcdserver: unhealthy cluster
9 etcdserver: not leader
9 etcdserver: bad leader transferee
2 etcdserver: request timed out, leader transfer took too long
2 etcdserver: unknown method
3 etcdserver: wrong downgrade target version format
3 etcdserver: invalid downgrade target version
9 etcdserver: cluster version not found during downgrade
9 etcdserver: cluster has a downgrade job in progress
9 etcdserver: no inflight downgrade job
3 etcdserver: request is too large
2 etcdserver: too many requests
14 etcdserver: no leader
14 etcdserver: leader changed
14 etcdserver: server stopped
14 etcdserver: request timed out
14 etcdserver: request timed out, possibly due to previous leader failure
14 etcdserver: request timed out, possibly due to connection lost
14 etcdserver: request timed out, waiting for the applied index took too long
15 etcdserver: corrupt cluster
9 etcdserver: rpc not supported for learner
4 context deadline exceeded
1 context canceled
2 not a primary lessor
2 raft proposal dropped
12 RangeStream does not support custom sort orders
12 RangeStream does not support revision filters
9 etcdserver: authentication is not enabled
5 unknown service
";

#[test]
fn the_table_is_golden() {
    let mut table = String::new();
    for status in TABLE {
        writeln!(table, "{} {}", status.code as u8, status.message).unwrap();
    }
    assert_eq!(table, GOLDEN);
}

#[test]
fn codes_have_grpcs_numbers_and_names() {
    for (number, code) in Code::ALL.into_iter().enumerate() {
        assert_eq!(code as usize, number);
    }
    assert_eq!(
        (Code::Ok.name(), Code::DeadlineExceeded.name(), Code::Unauthenticated.name()),
        ("OK", "DeadlineExceeded", "Unauthenticated")
    );
    let text = Status::new(Code::PermissionDenied, "etcdserver: permission denied").to_string();
    assert_eq!(text, "rpc error: code = PermissionDenied desc = etcdserver: permission denied");
}

#[test]
fn the_machines_refusals_keep_their_texts() {
    use milepost_machine::Error::*;
    let all = [
        EmptyKey,
        KeyNotFound,
        ValueProvided,
        LeaseProvided,
        TooManyOps,
        DuplicateKey,
        InvalidSortOption,
        StreamSort,
        StreamFilter,
        Compacted,
        FutureRevision,
        NoSpace,
        Corrupt,
        LeaseNotFound,
        LeaseExists,
        LeaseTtlTooLarge,
        NotPrimary,
        MemberExists,
        MemberNotFound,
        PeerUrlExists,
        NotLearner,
        TooManyLearners,
        NotEnoughStarted,
        DowngradeFormat,
        DowngradeTarget,
        NoClusterVersion,
        DowngradeInProgress,
        AuthUnavailable,
        Storage("disk".into()),
    ];
    for error in all {
        let text = error.text().to_owned();
        assert_eq!(Status::from(error).message, text);
    }
}
