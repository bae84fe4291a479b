//! What a running member tells and does by itself; what is dangerous; what is ignored.

use super::Effect::{Nothing, Works};
use super::Kind::{Bool, Ignored, Set, Signed, Span, Text, Unsigned, Urls};
use super::{Flag, rows};

const NO_TRACING: &str = "this version of Milepost sends no traces";
const SINCE_LONG: &str = "etcd ignores it too";

pub(super) const LOGGING: &[Flag] = rows! { Logging:
"logger"                        Text, "zap",     Works, "zap, which stands for structured lines.";
"log-outputs"                   Set,  "default", Works, "default (stderr), stderr, stdout, systemd/journal or files, comma-separated.";
"log-level"                     Text, "info",    Works, "debug, info, warn, error, dpanic, panic or fatal.";
"log-format"                    Text, "json",    Works, "json or console.";
"enable-log-rotation"           Bool, "false",   Works, "Rotate the one file of --log-outputs.";
"log-rotation-config-json"      Text, "{\"maxsize\": 100, \"maxage\": 0, \"maxbackups\": 0, \"localtime\": false, \"compress\": false}", Works, "Megabytes per file, days and number of old files to keep (0: all), local time in their names, gzip.";
"warning-unary-request-duration" Span, "300ms",  Works, "Log requests that take longer; 0: the default.";
"warning-apply-duration"        Span, "100ms",   Works, "Log requests whose apply takes longer.";
};

pub(super) const MONITORING: &[Flag] = rows! { Monitoring:
"listen-metrics-urls"           Urls, "",        Works, "More places that serve /metrics and health checks, and nothing else.";
"metrics"                       Text, "basic",   Works, "extensive adds histograms of request times.";
"enable-pprof"                  Bool, "false",   Works, "Serve profiles below /debug/pprof/ on client URLs.";
};

pub(super) const TRACING: &[Flag] = rows! { Tracing:
"enable-distributed-tracing"        Bool,   "false",          Nothing(NO_TRACING), "Send spans to an OpenTelemetry collector.";
"distributed-tracing-address"       Text,   "localhost:4317", Nothing(NO_TRACING), "The collector.";
"distributed-tracing-service-name"  Text,   "etcd",           Nothing(NO_TRACING), "Name of the service in spans.";
"distributed-tracing-instance-id"   Text,   "",               Nothing(NO_TRACING), "Name of this member in spans.";
"distributed-tracing-sampling-rate" Signed, "0",              Nothing(NO_TRACING), "Spans sent of a million.";
};

pub(super) const UPKEEP: &[Flag] = rows! { Upkeep:
"corrupt-check-time"            Span,     "0s",    Works, "Compare the members' hashes this often; 0: never.";
"compact-hash-check-time"       Span,     "1m0s",  Works, "Compare the hashes of compactions this often.";
"compaction-batch-limit"        Signed,   "0",     Works, "Revisions that one step of a compaction looks at; 0: 4000.";
"compaction-sleep-interval"     Span,     "0s",    Works, "Pause between such steps; 0: 10ms.";
"watch-progress-notify-interval" Span,    "0s",    Works, "Time between progress replies to watchers that ask for them; 0: 10m; at least 100ms.";
"downgrade-check-time"          Span,     "5s",    Works, "Look for the end of a downgrade this often; 0: never.";
"bootstrap-defrag-threshold-megabytes" Unsigned, "0", Works, "Defragment at start if that frees this much; 0: never.";
"max-learners"                  Signed,   "1",     Works, "Learners that the cluster may have at once.";
"config-file"                   Text,     "",      Works, "Read everything from this YAML or JSON file; other flags and variables are ignored then.";
"version"                       Bool,     "false", Works, "Print the version and leave.";
};

pub(super) const UNSAFE: &[Flag] = rows! { Unsafe:
"unsafe-no-fsync"               Bool, "false", Works, "Do not wait for the disk: acknowledged writes may be lost with the machine's power.";
"force-new-cluster"             Bool, "false", Works, "Drop all other members from the cluster.";
};

pub(super) const IGNORED: &[Flag] = rows! { Ignored:
"cluster-active-size"           Ignored, "", Nothing(SINCE_LONG), "Nothing.";
"cluster-remove-delay"          Ignored, "", Nothing(SINCE_LONG), "Nothing.";
"cluster-sync-interval"         Ignored, "", Nothing(SINCE_LONG), "Nothing.";
"config"                        Ignored, "", Nothing(SINCE_LONG), "Nothing; --config-file names a file.";
"force"                         Ignored, "", Nothing(SINCE_LONG), "Nothing.";
"max-result-buffer"             Ignored, "", Nothing(SINCE_LONG), "Nothing.";
"max-retry-attempts"            Ignored, "", Nothing(SINCE_LONG), "Nothing.";
"peer-heartbeat-interval"       Ignored, "", Nothing(SINCE_LONG), "Nothing.";
"peer-election-timeout"         Ignored, "", Nothing(SINCE_LONG), "Nothing.";
"retry-interval"                Ignored, "", Nothing(SINCE_LONG), "Nothing.";
"snapshot"                      Ignored, "", Nothing(SINCE_LONG), "Nothing.";
"v"                             Ignored, "", Nothing(SINCE_LONG), "Nothing.";
"vv"                            Ignored, "", Nothing(SINCE_LONG), "Nothing.";
"test.coverprofile"             Ignored, "", Nothing(SINCE_LONG), "Nothing.";
"test.outputdir"                Ignored, "", Nothing(SINCE_LONG), "Nothing.";
};
