//! This member: directories, listeners, limits.

use super::Effect::{Nothing, Works};
use super::Kind::{Bool, Gates, Signed, Span, Text, Unsigned, Unsigned32, Urls};
use super::{Flag, rows};

pub(super) const MEMBER: &[Flag] = rows! { Member:
"name"                          Text,       "default",               Works, "Name of this member; give each member of a cluster its own.";
"data-dir"                      Text,       "",                      Works, "Directory of everything this member keeps; without it NAME.etcd in the working directory.";
"wal-dir"                       Text,       "",                      Works, "Directory for the log alone, for a disk of its own; without it inside the data directory.";
"snapshot-count"                Unsigned,   "10000",                 Works, "Applied entries between two Raft snapshots; 0: the default.";
"snapshot-catchup-entries"      Unsigned,   "5000",                  Works, "Log entries kept behind a Raft snapshot for slow followers; 0: the default.";
"heartbeat-interval"            Unsigned,   "100",                   Works, "Milliseconds between heartbeats of the leader.";
"election-timeout"              Unsigned,   "1000",                  Works, "Milliseconds without a heartbeat before an election; 5 heartbeats to 50000.";
"initial-election-tick-advance" Bool,       "true",                  Works, "Shorten the first election timeout after a start.";
"listen-peer-urls"              Urls,       "http://localhost:2380", Works, "Where to listen for other members; the host is an IP address or localhost.";
"listen-client-urls"            Urls,       "http://localhost:2379", Works, "Where to listen for clients, gRPC and HTTP alike; needs --advertise-client-urls beside it.";
"listen-client-http-urls"       Urls,       "",                      Works, "Where to listen for HTTP alone; --listen-client-urls then serves gRPC alone.";
"max-snapshots"                 Unsigned,   "5",                     Works, "Raft snapshot files to keep; 0: all. Going away in etcd 3.8.";
"max-wals"                      Unsigned,   "5",                     Works, "Log segments to keep once they are not needed any more; 0: all.";
"memory-mlock"                  Bool,       "false",                 Works, "Keep the member's memory out of swap; needs a high enough locked-memory limit.";
"quota-backend-bytes"           Signed,     "0",                     Works, "Size of the store that raises the NOSPACE alarm; 0: 2 GiB; negative: no limit.";
"backend-bbolt-freelist-type"   Text,       "",                      Nothing("the store is not bbolt"), "Kind of free list: array or map.";
"backend-batch-interval"        Span,       "0s",                    Works, "Longest time before applied changes are committed to the store; 0: the store's own 500 ms.";
"backend-batch-limit"           Signed,     "0",                     Works, "Most changes in one commit to the store; 0: 10000.";
"max-txn-ops"                   Unsigned,   "128",                   Works, "Operations allowed in one branch of a transaction.";
"max-request-bytes"             Unsigned,   "1572864",               Works, "Largest request accepted, in bytes.";
"max-concurrent-streams"        Unsigned32, "4294967295",            Works, "Streams that one client connection may have open.";
"grpc-keepalive-min-time"       Span,       "5s",                    Works, "Clients that ping more often than this are cut off; 0: never.";
"grpc-keepalive-interval"       Span,       "2h0m0s",                Works, "Ping clients that have been quiet for this long; 0: never.";
"grpc-keepalive-timeout"        Span,       "20s",                   Works, "Close a connection whose ping is unanswered for this long; 0: never.";
"socket-reuse-port"             Bool,       "false",                 Works, "Let other processes of this user listen on the same ports.";
"socket-reuse-address"          Bool,       "false",                 Works, "Listen on an address whose old connections still time out; always on.";
"enable-grpc-gateway"           Bool,       "true",                  Works, "Serve the JSON gateway below /v3/.";
"raft-read-timeout"             Span,       "5s",                    Works, "Hang up a connection of another member that has said nothing for this long; at least 5s.";
"raft-write-timeout"            Span,       "5s",                    Works, "Hang up a connection of another member that has taken nothing for this long; at least 5s.";
"feature-gates"                 Gates,      "",                      Works, "Switch features, like LeaseCheckpoint=true; the features are listed at the end.";
};
