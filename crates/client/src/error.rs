//! Why a call gave no answer, and how etcd's tools word it.

use std::fmt;

pub use milepost_types::Code;

/// Texts of a server that etcd's client recognises: it shows them bare, and every other text inside of
/// `rpc error: code = … desc = …`.
///
/// Six texts of etcd are missing on purpose, as they are in its client: an invalid API version, "watch canceled",
/// "permission not given", the apply timeout, and the two declared context errors.
///
/// Source: etcd `api/v3rpc/rpctypes`, the map from texts to client errors.
const RECOGNISED: &[&str] = &[
    "key is not provided",
    "key not found",
    "value is provided",
    "lease is provided",
    "too many operations in txn request",
    "duplicate key given in txn request",
    "invalid sort option",
    "mvcc: required revision has been compacted",
    "mvcc: required revision is a future revision",
    "mvcc: database space exceeded",
    "requested lease not found",
    "lease already exists",
    "too large lease TTL",
    "member ID already exist",
    "Peer URLs already exists",
    "re-configuration failed due to not enough started members",
    "given member URLs are invalid",
    "member not found",
    "can only promote a learner member",
    "can only promote a learner member which is in sync with leader",
    "too many learner members in cluster",
    "cluster ID mismatch",
    "request is too large",
    "too many requests",
    "root user does not exist",
    "root user does not have root role",
    "user name already exists",
    "user name is empty",
    "user name not found",
    "role name already exists",
    "role name not found",
    "role name is empty",
    "authentication failed, invalid user ID or password",
    "permission denied",
    "role is not granted to the user",
    "permission is not granted to the role",
    "authentication is not enabled",
    "invalid auth token",
    "invalid auth management",
    "revision of auth store is old",
    "no leader",
    "not leader",
    "leader changed",
    "not capable",
    "server stopped",
    "request timed out",
    "request timed out, possibly due to previous leader failure",
    "request timed out, possibly due to connection lost",
    "unhealthy cluster",
    "corrupt cluster",
    "rpc not supported for learner",
    "bad leader transferee",
    "cluster version not found during downgrade",
    "wrong downgrade target version format",
    "invalid downgrade target version",
    "cluster has a downgrade job in progress",
    "no inflight downgrade job",
];

/// A call that failed. [`fmt::Display`] words it as etcd's tools do after `Error: `.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    code: Code,
    message: String,
    origin: Origin,
}

/// Who said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// A gRPC status, sent by the server or standing for a broken connection.
    Status,
    /// Our own deadline or cancellation: shown without gRPC's dress.
    Context,
    /// This library, without any call: shown as it is.
    Client,
}

impl Error {
    /// A gRPC status.
    #[must_use]
    pub fn status(code: Code, message: impl Into<String>) -> Error {
        Error { code, message: message.into(), origin: Origin::Status }
    }

    /// The deadline of the call has passed. `detail` tells what was last tried; only [`Error::rpc_text`] shows it.
    pub(crate) fn deadline(detail: Option<&str>) -> Error {
        let message = detail.map_or_else(|| CONTEXT_DEADLINE.to_owned(), str::to_owned);
        Error { code: Code::DeadlineExceeded, message, origin: Origin::Context }
    }

    /// The caller has given up.
    #[must_use]
    pub fn canceled() -> Error {
        Error { code: Code::Canceled, message: CONTEXT_CANCELED.into(), origin: Origin::Context }
    }

    /// An error of the client itself, shown as `message`.
    #[must_use]
    pub fn client(message: impl Into<String>) -> Error {
        Error { code: Code::Unknown, message: message.into(), origin: Origin::Client }
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Error {
        Error::status(Code::Unavailable, message)
    }

    /// gRPC's code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// The bare text, as `etcdserver: requested lease not found`.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// gRPC's dress around code and text, whatever the text is: for logs.
    #[must_use]
    pub fn rpc_text(&self) -> String {
        format!("rpc error: code = {:?} desc = {}", self.code, self.message)
    }

    /// Whether the server said exactly `etcdserver: {text}`.
    #[must_use]
    pub fn is(&self, text: &str) -> bool {
        self.message.strip_prefix(PREFIX) == Some(text)
    }

    /// Whether our own deadline or cancellation ended the call, not the server.
    #[must_use]
    pub fn is_context(&self) -> bool {
        self.origin == Origin::Context
    }
}

const PREFIX: &str = "etcdserver: ";
const CONTEXT_DEADLINE: &str = "context deadline exceeded";
const CONTEXT_CANCELED: &str = "context canceled";

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let recognised = self.message.strip_prefix(PREFIX).is_some_and(|text| RECOGNISED.contains(&text));
        match (self.origin, self.code) {
            (Origin::Context, Code::Canceled) => f.write_str(CONTEXT_CANCELED),
            (Origin::Context, _) => f.write_str(CONTEXT_DEADLINE),
            (Origin::Client, _) => f.write_str(&self.message),
            (Origin::Status, _) if recognised => f.write_str(&self.message),
            (Origin::Status, _) => f.write_str(&self.rpc_text()),
        }
    }
}

impl std::error::Error for Error {}

/// Why there is no client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The configuration cannot be used: a file is missing, a certificate is malformed.
    #[error("{0}")]
    Config(String),
    /// The configuration is fine, but the first steps failed: no endpoints, or the server refused the user.
    #[error("{0}")]
    Refused(Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_texts_are_shown_bare_and_others_in_grpcs_dress() {
        let known = Error::status(Code::NotFound, "etcdserver: requested lease not found");
        assert_eq!(known.to_string(), "etcdserver: requested lease not found");
        assert_eq!(known.rpc_text(), "rpc error: code = NotFound desc = etcdserver: requested lease not found");
        assert!(known.is("requested lease not found"));
        let unknown = Error::status(Code::Unimplemented, "unknown service x");
        assert_eq!(unknown.to_string(), "rpc error: code = Unimplemented desc = unknown service x");
        let unmapped = Error::status(Code::InvalidArgument, "etcdserver: permission not given");
        assert!(unmapped.to_string().starts_with("rpc error: code = InvalidArgument desc = "));
    }

    #[test]
    fn a_deadline_of_ours_hides_what_was_tried() {
        let error = Error::deadline(Some("latest balancer error: x"));
        assert_eq!(error.to_string(), "context deadline exceeded");
        assert_eq!(error.rpc_text(), "rpc error: code = DeadlineExceeded desc = latest balancer error: x");
        assert_eq!(Error::canceled().to_string(), "context canceled");
    }
}
