//! The commands, one file for each, and the tree that they form.

pub mod alarm;
pub mod auth;
pub mod compaction;
pub mod completion;
pub mod defrag;
pub mod del;
pub mod downgrade;
pub mod endpoint;
pub mod get;
pub mod help;
pub mod lease;
pub mod member;
pub mod move_leader;
pub mod options;
pub mod put;
pub mod role;
pub mod txn;
pub mod user;
pub mod version;

use crate::frame::Spec;
use crate::globals;

/// The tree.
pub static ROOT: Spec = Spec {
    name: "etcdctl",
    usage: "etcdctl",
    short: "Talks to etcd and to Milepost.",
    inherited: globals::FLAGS,
    children: &[
        &alarm::COMMAND,
        &auth::COMMAND,
        &compaction::COMMAND,
        &completion::COMMAND,
        &defrag::COMMAND,
        &del::COMMAND,
        &downgrade::COMMAND,
        &endpoint::COMMAND,
        &get::COMMAND,
        &help::COMMAND,
        &lease::COMMAND,
        &member::COMMAND,
        &move_leader::COMMAND,
        &options::COMMAND,
        &put::COMMAND,
        &role::COMMAND,
        &txn::COMMAND,
        &user::COMMAND,
        &version::COMMAND,
    ],
    ..Spec::NEW
};
