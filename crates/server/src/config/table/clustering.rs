//! How the cluster forms.

use super::Effect::{Nothing, Works};
use super::Kind::{Bool, Choice, Choices, Set, Span, Text, Urls};
use super::{Flag, rows};

pub(super) const CLUSTERING: &[Flag] = rows! { Clustering:
"initial-advertise-peer-urls"   Urls, "http://localhost:2380",         Works, "Peer URLs of this member as other members reach them.";
"initial-cluster"               Text, "default=http://localhost:2380", Works, "Members of the new cluster: name=url, comma-separated; read only when there is no data yet.";
"initial-cluster-state"         Choice(&["new", "existing"]), "new",   Works, "new to form a cluster, existing to join one.";
"initial-cluster-token"         Text, "etcd-cluster",                  Works, "Keeps clusters that are formed alike apart.";
"advertise-client-urls"         Urls, "http://localhost:2379",         Works, "Client URLs of this member as clients reach them.";
"discovery-endpoints"           Set,  "",       Works,              "Endpoints of another etcd through which members find each other.";
"discovery-token"               Text, "",       Works,              "The cluster's token at the discovery endpoints.";
"discovery-dial-timeout"        Span, "2s",     Works,              "Longest time to connect to a discovery endpoint.";
"discovery-request-timeout"     Span, "5s",     Works,              "Longest time for a discovery request.";
"discovery-keepalive-time"      Span, "2s",     Works,              "Ping discovery endpoints this often.";
"discovery-keepalive-timeout"   Span, "6s",     Works,              "Longest time for a ping's answer.";
"discovery-insecure-transport"  Bool, "true",   Works,              "Talk to discovery endpoints without TLS.";
"discovery-insecure-skip-tls-verify" Bool, "false", Works,             "Do not check the certificate of discovery endpoints.";
"discovery-cert"                Text, "",       Works,              "Client certificate for discovery.";
"discovery-key"                 Text, "",       Works,              "Key of that certificate.";
"discovery-cacert"              Text, "",       Works,              "CA bundle for discovery endpoints.";
"discovery-user"                Text, "",       Works,              "User for discovery, or user:password.";
"discovery-password"            Text, "",       Works,              "Password for discovery.";
"discovery-srv"                 Text, "",       Works,              "DNS domain whose SRV records name the members.";
"discovery-srv-name"            Text, "",       Works,              "Suffix of the SRV service names.";
"discovery-fallback"            Choice(&["exit", "proxy"]), "exit", Works, "What to do when discovery fails; proxy is refused, as etcd does.";
"strict-reconfig-check"         Bool, "true",   Works,               "Refuse member changes that would lose the quorum.";
"pre-vote"                      Bool, "true",   Works,               "Ask before standing for election, so that a member that comes back does not disturb.";
"auto-compaction-mode"          Text, "periodic", Works,             "periodic or revision.";
"auto-compaction-retention"     Text, "0",      Works,               "History to keep: hours or a duration (periodic), revisions (revision); 0: all.";
"v2-deprecation"                Choices(&["write-only", "write-only-skip-check", "write-only-drop-data", "gone"]), "", Nothing("etcd 3.7 ignores it too"), "Stage of the removal of the v2 store.";
};
