//! The doing half of the node: threads that run the core's effects.
//!
//! ```text
//!   callers ──propose, read──► to_raft ──► Raft thread (Core) ──Persist──► to_log ──► log thread: one write, one sync
//!                                 ▲   ▲          │                                        │
//!                                 │   │          └──Apply──► to_apply ──► apply thread ───┼──► answers, events
//!                                 │   └───── applied, conf changes ◄──────────┘           │
//!                                 └───────── Persisted ◄──────────────────────────────────┘
//!                                  snapshot points: apply thread ──► to_keeper ──► keeper thread ──► store, log
//! ```
//! Every thread takes all that waits for it at once, so that work is shared when there is much of it and nothing is
//! delayed when there is little; a lone member's Raft thread then takes the turns of the two others itself ([`turns`]).
//! What bounds the queues: proposals are refused when too much is unanswered ([`crate::Node::propose`]); everything else in
//! them follows from proposals or is a message of a peer, of which the peer has a bounded number under way.

pub(crate) mod apply_loop;
pub(crate) mod defragmenter;
pub(crate) mod duties;
pub(crate) mod installer;
pub(crate) mod keeper;
pub(crate) mod log_loop;
pub(crate) mod queue;
pub(crate) mod raft_loop;
pub(crate) mod reads;
pub(crate) mod role_log;
pub(crate) mod sender;
pub(crate) mod shared;
pub(crate) mod space;
pub(crate) mod turns;
