//! What each call does, free of any transport: a decoded message in, a decoded message or a [`crate::status::Status`]
//! out. gRPC uses these today, the JSON gateway will tomorrow.

pub(crate) mod auth;
pub(crate) mod cluster;
pub(crate) mod election;
pub(crate) mod health;
pub(crate) mod kv;
pub(crate) mod later;
pub(crate) mod leader;
pub(crate) mod lease;
mod line;
pub(crate) mod lock;
pub(crate) mod maintenance;
pub(crate) mod promote;
mod reconfig;
pub(crate) mod reign;
pub(crate) mod snapshot;
pub(crate) mod watch;
