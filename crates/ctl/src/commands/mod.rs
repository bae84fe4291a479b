//! The commands, one file for each, and the tree that they form.

pub mod alarm;
pub mod auth;
pub mod check;
pub mod compaction;
pub mod completion;
pub mod defrag;
pub mod del;
pub mod downgrade;
pub mod elect;
pub mod endpoint;
pub mod get;
pub mod help;
pub mod keep_alive;
pub mod lease;
pub mod lock;
pub mod make_mirror;
pub mod member;
pub mod move_leader;
pub mod options;
pub mod put;
pub mod role;
pub mod snapshot;
pub mod txn;
pub mod user;
pub mod version;
pub mod watch;

use crate::frame::Spec;
use crate::globals;

/// The tree.
pub static ROOT: Spec = Spec {
    name: "etcdctl",
    usage: "etcdctl",
    short: "Talks to etcd and to Milepost.",
    inherited: globals::FLAGS,
    // In the order in which etcdctl adds them: suggestions come in it. Pages sort.
    children: &[
        &get::COMMAND,
        &put::COMMAND,
        &del::COMMAND,
        &txn::COMMAND,
        &compaction::COMMAND,
        &alarm::COMMAND,
        &defrag::COMMAND,
        &endpoint::COMMAND,
        &move_leader::COMMAND,
        &watch::COMMAND,
        &version::COMMAND,
        &lease::COMMAND,
        &member::COMMAND,
        &snapshot::COMMAND,
        &make_mirror::COMMAND,
        &lock::COMMAND,
        &elect::COMMAND,
        &auth::COMMAND,
        &user::COMMAND,
        &role::COMMAND,
        &check::COMMAND,
        &completion::COMMAND,
        &downgrade::COMMAND,
        &options::COMMAND,
        &help::COMMAND,
    ],
    ..Spec::NEW
};
