package startup

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// floors are the least numbers of cases that came up and were refused.
var floors = map[string][2]int{
	"syntax": {12, 24}, "value": {30, 18}, "url": {5, 24}, "validate": {4, 20}, "cluster": {3, 11}, "gates": {6, 5},
	"env": {10, 11}, "file": {12, 25}, "tls": {16, 18}, "listen": {6, 8}, "log": {14, 11}, "end": {2, 12}, "old": {3, 9}, "dir": {6, 4},
}

// good is a case that etcd takes, bad one that it refuses; both on top of base.
func good(kind, name string, args ...string) start {
	return start{kind: kind, name: name, args: args, up: true}
}

func bad(kind, name string, args ...string) start {
	return start{kind: kind, name: name, args: args}
}

// worded is a case whose message ours words in its own way; it must end as
// etcd does and say these things.
func worded(c start, end, why string, says ...string) start {
	c.ours = &ours{why: why, end: end, says: says}
	return c
}

// Reasons for messages in other words.
const (
	system = "the words are those of the operating system's call"
	pem    = "ours names the file, where etcd's library does not know it"
)

// only is bad without the usual flags: it must be refused for its own flags.
func only(kind, name string, args ...string) start {
	return start{kind: kind, name: name, args: args, bare: true}
}

func cases() []start {
	var all []start
	for _, group := range [][]start{
		syntaxCases(), valueCases(), urlCases(), validateCases(), clusterCases(), gateCases(),
		envCases(), fileCases(), tlsCases(), listenCases(), logCases(), endCases(), oldCases(), dirCases(),
	} {
		all = append(all, group...)
	}
	return all
}

// syntaxCases: Go's way to write flags, which is not GNU's.
func syntaxCases() []start {
	const k = "syntax"
	return []start{
		good(k, "one dash", "-max-txn-ops=7"),
		good(k, "value apart", "--max-txn-ops", "7"),
		good(k, "one dash, value apart", "-max-txn-ops", "7"),
		good(k, "hexadecimal", "--heartbeat-interval=0x64"),
		good(k, "binary", "--heartbeat-interval=0b1100100"),
		good(k, "octal", "--heartbeat-interval=0o144"),
		good(k, "underscore", "--heartbeat-interval=1_00", "--election-timeout=1_000"),
		good(k, "last wins", "--heartbeat-interval=0", "--heartbeat-interval=100"),
		good(k, "double dash ends flags", "--"),
		good(k, "bool short true", "--strict-reconfig-check=T"),
		good(k, "bool zero", "--pre-vote=0"),
		good(k, "bool alone", "--pre-vote"),
		good(k, "version false", "--version=false"),
		bad(k, "bool apart leaves a stray word", "--pre-vote", "false"),
		bad(k, "stray word", "foo"),
		bad(k, "stray word after double dash", "--", "foo"),
		bad(k, "a dash alone", "-"),
		bad(k, "bool yes", "--pre-vote=yes"),
		bad(k, "bool empty", "--pre-vote="),
		bad(k, "bool tRuE", "--pre-vote=tRuE"),
		bad(k, "three dashes", "---name=x"),
		bad(k, "no name", "--=x"),
		bad(k, "no name, one dash", "-=x"),
		bad(k, "value missing", "--max-txn-ops"),
		bad(k, "unknown", "--no-such-flag"),
		bad(k, "unknown with value", "--no-such-flag=1"),
		bad(k, "unknown, one dash", "-no-such-flag=1"),
		bad(k, "upper case", "--NAME=x"),
		bad(k, "abbreviated", "--heartbeat=100"),
		bad(k, "negative unsigned", "--heartbeat-interval=-1"),
		bad(k, "exponent", "--heartbeat-interval=1e2"),
		bad(k, "unit where none belongs", "--heartbeat-interval=100ms"),
		bad(k, "fraction", "--heartbeat-interval=100.5"),
		bad(k, "empty number", "--heartbeat-interval="),
		bad(k, "space in number", "--heartbeat-interval= 100"),
		bad(k, "plus sign", "--heartbeat-interval=+100"),
		bad(k, "underscore at the end", "--heartbeat-interval=100_"),
		bad(k, "leading zero is octal", "--heartbeat-interval=09"),
	}
}

// valueCases: values that their type does or does not allow.
func valueCases() []start {
	const k = "value"
	return []start{
		good(k, "duration parts", "--grpc-keepalive-interval=1h2m3.5s"),
		good(k, "duration micro", "--backend-batch-interval=5000µs"),
		good(k, "duration plain zero", "--grpc-keepalive-min-time=0"),
		good(k, "duration fraction", "--grpc-keepalive-timeout=.5s"),
		good(k, "quota negative", "--quota-backend-bytes=-1"),
		good(k, "quota hexadecimal", "--quota-backend-bytes=0x80000000"),
		good(k, "quota above the usual", "--quota-backend-bytes=9000000000"),
		good(k, "request bytes above the usual", "--max-request-bytes=20971520"),
		good(k, "streams max", "--max-concurrent-streams=4294967295"),
		good(k, "batch", "--backend-batch-limit=10", "--backend-batch-interval=10ms"),
		good(k, "compaction", "--compaction-batch-limit=10", "--compaction-sleep-interval=1ms"),
		good(k, "snapshots", "--snapshot-count=10", "--snapshot-catchup-entries=5", "--max-wals=1", "--max-snapshots=1"),
		good(k, "bcrypt cost out of range", "--bcrypt-cost=99"),
		good(k, "bbolt free list", "--backend-bbolt-freelist-type=array"),
		good(k, "metrics extensive", "--metrics=extensive"),
		good(k, "pprof", "--enable-pprof"),
		good(k, "gateway off", "--enable-grpc-gateway=false"),
		good(k, "progress below the least", "--watch-progress-notify-interval=1ms"),
		good(k, "warnings", "--warning-apply-duration=1s", "--warning-unary-request-duration=1s"),
		good(k, "socket options", "--socket-reuse-port=true", "--socket-reuse-address=true"),
		good(k, "raft timeouts raised", "--raft-read-timeout=1s", "--raft-write-timeout=1s"),
		good(k, "ticks not advanced", "--initial-election-tick-advance=false"),
		good(k, "corrupt check", "--corrupt-check-time=1h", "--compact-hash-check-time=1h"),
		good(k, "learners", "--max-learners=3"),
		good(k, "downgrade check off", "--downgrade-check-time=0"),
		good(k, "defrag threshold", "--bootstrap-defrag-threshold-megabytes=10"),
		good(k, "v2 deprecation", "--v2-deprecation=gone"),
		good(k, "cors", "--cors=http://127.0.0.1:80,http://other.example:8080"),
		good(k, "host whitelist", "--host-whitelist=127.0.0.1,localhost"),
		good(k, "force new cluster", "--force-new-cluster"),
		good(k, "periodic compaction", "--auto-compaction-retention=1h"),
		good(k, "periodic compaction in hours", "--auto-compaction-retention=1"),
		good(k, "revision compaction", "--auto-compaction-mode=revision", "--auto-compaction-retention=1000"),
		good(k, "token ttl", "--auth-token-ttl=30"),
		bad(k, "duration without unit", "--grpc-keepalive-interval=10"),
		bad(k, "duration in days", "--grpc-keepalive-interval=1d"),
		bad(k, "duration with space", "--grpc-keepalive-interval=1h 2m"),
		bad(k, "duration empty", "--grpc-keepalive-interval="),
		bad(k, "duration too long", "--grpc-keepalive-interval=9999999h"),
		bad(k, "quota with unit", "--quota-backend-bytes=1GB"),
		bad(k, "quota too large", "--quota-backend-bytes=9223372036854775808"),
		bad(k, "streams too many", "--max-concurrent-streams=4294967296"),
		bad(k, "streams no number", "--max-concurrent-streams=many"),
		bad(k, "unsigned too large", "--snapshot-count=18446744073709551616"),
		bad(k, "int no number", "--max-learners=one"),
		bad(k, "bool no bool", "--enable-pprof=maybe"),
		bad(k, "cluster state", "--initial-cluster-state=bogus"),
		bad(k, "cluster state empty", "--initial-cluster-state="),
		bad(k, "fallback", "--discovery-fallback=bogus"),
		bad(k, "v2 deprecation not-yet", "--v2-deprecation=not-yet"),
		bad(k, "v2 deprecation bogus", "--v2-deprecation=bogus"),
		bad(k, "cors no origin", "--cors=nonsense"),
		bad(k, "cors with path", "--cors=http://a.example:80/path"),
	}
}

// urlCases: the URL flags' own syntax.
func urlCases() []start {
	const k = "url"
	listen := func(name, value string) start { return bad(k, name, "--listen-client-urls="+value) }
	return []start{
		good(k, "two, spaced", "--listen-client-urls=http://{c}, http://{c2}"),
		good(k, "the same twice", "--listen-client-urls=http://{c},http://{c}"),
		good(k, "localhost", "--listen-client-urls=http://localhost:{cport}"),
		listen("one slash, as in the document", "http:/10.240.0.19:2379"),
		listen("no port", "http://127.0.0.1"),
		listen("path", "http://127.0.0.1:2379/"),
		listen("longer path", "http://127.0.0.1:2379/x"),
		listen("other scheme", "ftp://127.0.0.1:2379"),
		listen("no scheme", "127.0.0.1:2379"),
		listen("localhost as scheme", "localhost:2379"),
		listen("port no number", "http://127.0.0.1:http"),
		listen("bracket open", "http://[::1:2379"),
		good(k, "empty says nothing", "--listen-client-urls="),
		good(k, "advertised empty says nothing", "--advertise-client-urls="),
		listen("one of two empty", "http://127.0.0.1:2379,"),
		listen("space inside", "http://127.0.0.1 :2379"),
		listen("percent", "http://127.0.0.1%zz:2379"),
		listen("host name", "http://example.com:2379"),
		listen("no host", "http://:2379"),
		listen("port out of range", "http://127.0.0.1:99999"),
		bad(k, "peer host name", "--listen-peer-urls=http://example.com:2380"),
		bad(k, "peer path", "--listen-peer-urls=http://127.0.0.1:2380/"),
		bad(k, "metrics host name", "--listen-metrics-urls=http://example.com:2381"),
		bad(k, "metrics no port", "--listen-metrics-urls=http://127.0.0.1"),
		bad(k, "client http host name", "--listen-client-http-urls=http://example.com:2382"),
		bad(k, "client http no scheme", "--listen-client-http-urls=127.0.0.1:2382"),
		bad(k, "advertised no host", "--advertise-client-urls=http://:2379"),
		bad(k, "advertised path", "--advertise-client-urls=http://127.0.0.1:2379/x"),
		bad(k, "advertised peer no host", "--initial-advertise-peer-urls=http://:2380", "--initial-cluster=m1=http://:2380"),
		bad(k, "advertised peer path", "--initial-advertise-peer-urls=http://127.0.0.1:2380/"),
	}
}

// validateCases: each flag is well formed, together they make no sense.
func validateCases() []start {
	const k = "validate"
	return []start{
		good(k, "election exactly five heartbeats", "--heartbeat-interval=200", "--election-timeout=1000"),
		good(k, "mode revision alone", "--auto-compaction-mode=revision"),
		good(k, "sampling rate without tracing", "--distributed-tracing-sampling-rate=-1"),
		bad(k, "heartbeat zero", "--heartbeat-interval=0"),
		bad(k, "election zero", "--election-timeout=0"),
		bad(k, "election below five heartbeats", "--heartbeat-interval=300", "--election-timeout=1000"),
		bad(k, "election above its most", "--election-timeout=60000"),
		bad(k, "discovery token alone", "--discovery-token=abc"),
		bad(k, "discovery endpoints alone", "--discovery-endpoints=http://127.0.0.1:1"),
		bad(k, "discovery and cluster", "--discovery-endpoints=http://127.0.0.1:1", "--discovery-token=abc"),
		bad(k, "srv and cluster", "--discovery-srv=example.com"),
		bad(k, "fallback proxy", "--discovery-fallback=proxy"),
		bad(k, "mode bogus", "--auto-compaction-mode=bogus"),
		bad(k, "mode empty", "--auto-compaction-mode="),
		bad(k, "retention no number", "--auto-compaction-retention=abc"),
		good(k, "retention duration as revisions", "--auto-compaction-mode=revision", "--auto-compaction-retention=1h"),
		bad(k, "compact hash check zero", "--compact-hash-check-time=0"),
		bad(k, "sampling negative", "--enable-distributed-tracing", "--distributed-tracing-sampling-rate=-1"),
		bad(k, "sampling above a million", "--enable-distributed-tracing", "--distributed-tracing-sampling-rate=1000001"),
		bad(k, "token kind", "--auth-token=bogus"),
		only(k, "client urls without advertised ones", "--data-dir={dir}/data", "--listen-client-urls=http://{c}"),
		only(k, "client urls apart from other faults", "--data-dir={dir}/data", "--listen-client-urls=http://{c}", "--heartbeat-interval=0"),
		bad(k, "tls version", "--tls-min-version=TLS1.1"),
		bad(k, "tls version spelled otherwise", "--tls-min-version=1.2"),
		bad(k, "tls max below min", "--tls-min-version=TLS1.3", "--tls-max-version=TLS1.2"),
		bad(k, "suites with TLS 1.3", "--tls-min-version=TLS1.3", "--cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"),
	}
}

// clusterCases: names, URLs and state of the first cluster.
func clusterCases() []start {
	const k = "cluster"
	return []start{
		good(k, "token", "--initial-cluster-token=other"),
		good(k, "state new", "--initial-cluster-state=new"),
		good(k, "several peer urls", "--listen-peer-urls=http://{p},http://{h}", "--initial-advertise-peer-urls=http://{p},http://{h}",
			"--initial-cluster=m1=http://{h},m1=http://{p}"),
		bad(k, "name not in it", "--name=other"),
		bad(k, "name empty", "--name="),
		bad(k, "peer url mismatch", "--initial-cluster=m1=http://127.0.0.1:1"),
		bad(k, "peer url more", "--initial-cluster=m1=http://{p},m1=http://127.0.0.1:1"),
		bad(k, "url twice", "--initial-cluster=m1=http://{p},m2=http://{p}"),
		bad(k, "no equals sign", "--initial-cluster=m1"),
		bad(k, "no name", "--initial-cluster==http://{p}"),
		bad(k, "no url", "--initial-cluster=m1="),
		bad(k, "url with path", "--initial-cluster=m1=http://{p}/x"),
		bad(k, "url no scheme", "--initial-cluster=m1={p}"),
		bad(k, "empty", "--initial-cluster="),
		bad(k, "state existing alone", "--initial-cluster-state=existing"),
	}
}

// gateCases: feature gates.
func gateCases() []start {
	const k = "gates"
	return []start{
		good(k, "one", "--feature-gates=CompactHashCheck=true"),
		good(k, "spaces", "--feature-gates= LeaseCheckpoint = true , CompactHashCheck=false"),
		good(k, "all alpha", "--feature-gates=AllAlpha=true"),
		good(k, "no beta", "--feature-gates=AllBeta=false"),
		good(k, "empty", "--feature-gates="),
		good(k, "persist with checkpoint", "--feature-gates=LeaseCheckpoint=true,LeaseCheckpointPersist=true"),
		bad(k, "unknown", "--feature-gates=NoSuchGate=true"),
		bad(k, "no value", "--feature-gates=LeaseCheckpoint"),
		bad(k, "no bool", "--feature-gates=LeaseCheckpoint=maybe"),
		bad(k, "wrong case", "--feature-gates=leasecheckpoint=true"),
		bad(k, "persist without checkpoint", "--feature-gates=LeaseCheckpointPersist=true"),
	}
}

// envCases: variables.
func envCases() []start {
	const k = "env"
	with := func(c start, env ...string) start {
		c.env = env
		return c
	}
	all := []string{
		"ETCD_NAME=m1", "ETCD_DATA_DIR={dir}/data",
		"ETCD_LISTEN_CLIENT_URLS=http://{c}", "ETCD_ADVERTISE_CLIENT_URLS=http://{c}",
		"ETCD_LISTEN_PEER_URLS=http://{p}", "ETCD_INITIAL_ADVERTISE_PEER_URLS=http://{p}",
		"ETCD_INITIAL_CLUSTER=m1=http://{p}", "ETCD_UNSAFE_NO_FSYNC=true",
	}
	nothingElse := only(k, "everything by variables")
	nothingElse.up = true
	return []start{
		with(nothingElse, all...),
		with(good(k, "empty is unset"), "ETCD_HEARTBEAT_INTERVAL="),
		with(good(k, "hexadecimal"), "ETCD_HEARTBEAT_INTERVAL=0x64"),
		with(good(k, "bool"), "ETCD_PRE_VOTE=false"),
		func() start {
			c := with(good(k, "unknown variable warns"), "ETCD_NO_SUCH=1")
			c.says = []string{"unrecognized environment variable", "ETCD_NO_SUCH=1"}
			return c
		}(),
		with(good(k, "lower case is not ours"), "etcd_heartbeat_interval=0"),
		with(good(k, "version is dropped"), "ETCD_VERSION=3.1"),
		with(good(k, "arch"), "ETCD_UNSUPPORTED_ARCH=amd64"),
		with(good(k, "gates"), "ETCD_FEATURE_GATES=CompactHashCheck=true"),
		with(good(k, "log level"), "ETCD_LOG_LEVEL=warn"),
		with(bad(k, "flag and variable"), "ETCD_NAME=m1"),
		with(bad(k, "flag and variable differ", "--heartbeat-interval=100"), "ETCD_HEARTBEAT_INTERVAL=200"),
		with(bad(k, "no number"), "ETCD_HEARTBEAT_INTERVAL=abc"),
		with(bad(k, "no bool"), "ETCD_PRE_VOTE=maybe"),
		with(bad(k, "no duration"), "ETCD_GRPC_KEEPALIVE_INTERVAL=10"),
		with(bad(k, "no url"), "ETCD_LISTEN_METRICS_URLS=nonsense"),
		with(bad(k, "no state"), "ETCD_INITIAL_CLUSTER_STATE=bogus"),
		with(bad(k, "no gate"), "ETCD_FEATURE_GATES=NoSuchGate=true"),
		with(bad(k, "no level"), "ETCD_LOG_LEVEL=bogus"),
		with(bad(k, "fails validation"), "ETCD_ELECTION_TIMEOUT=100"),
		with(only(k, "client urls without advertised ones"), "ETCD_DATA_DIR={dir}/data", "ETCD_LISTEN_CLIENT_URLS=http://{c}"),
		with(only(k, "missing config file"), "ETCD_CONFIG_FILE={dir}/none.yaml"),
	}
}

// fileCases: the config file.
func fileCases() []start {
	const k = "file"
	file := func(name, content string, args ...string) start {
		return start{kind: k, name: name, bare: true, args: append([]string{"--config-file={dir}/c.yaml"}, args...),
			files: map[string]string{"c.yaml": content}}
	}
	up := func(c start) start {
		c.up = true
		return c
	}
	const usual = `name: m1
data-dir: {dir}/data
listen-client-urls: http://{c}
advertise-client-urls: http://{c}
listen-peer-urls: http://{p}
initial-advertise-peer-urls: http://{p}
initial-cluster: m1=http://{p}
unsafe-no-fsync: true
`
	byEnv := file("by variable, other variables do not count", usual)
	byEnv.args, byEnv.env, byEnv.up = nil, []string{"ETCD_CONFIG_FILE={dir}/c.yaml", "ETCD_HEARTBEAT_INTERVAL=0"}, true
	secure := file("certificates", usual+"client-transport-security:\n  cert-file: {cert}\n  key-file: {key}\n")
	secure.files["c.yaml"] = `name: m1
data-dir: {dir}/data
listen-client-urls: https://{c}
advertise-client-urls: https://{c}
listen-peer-urls: http://{p}
initial-advertise-peer-urls: http://{p}
initial-cluster: m1=http://{p}
client-transport-security:
  cert-file: {cert}
  key-file: {key}
  client-cert-auth: true
  trusted-ca-file: {ca}
`
	secure.up, secure.ask = true, ask{tls: "client"}
	version := file("version all the same", "heartbeat-interval: [", "--version")
	return []start{
		up(file("yaml", usual)),
		up(file("json", `{"name":"m1","data-dir":"{dir}/data","listen-client-urls":"http://{c}","advertise-client-urls":"http://{c}",`+
			`"listen-peer-urls":"http://{p}","initial-advertise-peer-urls":"http://{p}","initial-cluster":"m1=http://{p}","heartbeat-interval":50}`)),
		up(file("comments, documents, quotes", "# a comment\n---\n"+usual+"log-level: 'info' # another\nheartbeat-interval: 0x64\n")),
		up(file("unknown keys", usual+"no-such-key: 1\n")),
		up(file("capital letters", usual+"Heartbeat-Interval: 50\n")),
		up(file("flags do not count", usual, "--heartbeat-interval=0", "--listen-metrics-urls=http://example.com:1")),
		up(file("durations are nanoseconds", usual+"grpc-keepalive-interval: 7200000000000\nauto-compaction-mode: periodic\nauto-compaction-retention: \"1h\"\n")),
		up(file("lists", usual+"log-outputs: [stderr]\ncors: http://127.0.0.1:1\nhost-whitelist: 127.0.0.1\nfeature-gates: CompactHashCheck=true\n")),
		up(file("socket options", usual+"socket-options:\n  reuse-port: true\n  reuse-address: true\n")),
		up(file("validity zero", usual+"self-signed-cert-validity: 0\n")),
		up(file("state empty", usual+"initial-cluster-state: \"\"\n")),
		byEnv,
		secure,
		version,
		file("flag that does not parse", usual, "--heartbeat-interval=abc"),
		file("unknown flag", usual, "--no-such-flag"),
		func() start {
			c := file("missing", usual)
			c.args = []string{"--config-file={dir}/none.yaml"}
			return c
		}(),
		func() start {
			c := file("a folder", usual)
			c.args = []string{"--config-file={dir}"}
			return worded(c, "exit 1", system, "failed to verify flags | ", "{dir}: is a directory")
		}(),
		parser(file("no yaml", "neither: [{\n"), "error converting YAML to JSON: yaml: line "),
		file("a list", "- a\n- b\n"),
		file("a word", "word\n"),
		parser(file("tab", usual+"\tname: x\n"), "error converting YAML to JSON: yaml: line "),
		file("key twice", usual+"name: m2\n"),
		file("number as text", usual+"heartbeat-interval: abc\n"),
		file("text as number", usual+"auto-compaction-retention: 1\n"),
		file("bool as text", usual+"pre-vote: \"yes\"\n"),
		file("duration as text", usual+"grpc-keepalive-interval: 10m\n"),
		file("negative unsigned", usual+"snapshot-count: -1\n"),
		file("bad urls", usual+"listen-metrics-urls: nonsense\n"),
		file("host name", usual+"listen-metrics-urls: http://example.com:1\n"),
		file("election below five heartbeats", usual+"heartbeat-interval: 500\nelection-timeout: 1000\n"),
		file("state bogus", usual+"initial-cluster-state: bogus\n"),
		file("mode bogus", usual+"auto-compaction-mode: bogus\n"),
		file("gate unknown", usual+"feature-gates: NoSuchGate=true\n"),
		file("certificate without key", strings.ReplaceAll(usual, "http://{c}", "https://{c}")+"client-transport-security:\n  cert-file: {cert}\n"),
		file("log level", usual+"log-level: bogus\n"),
		file("log format", usual+"log-format: bogus\n"),
		file("log outputs as text", usual+"log-outputs: stderr\n"),
		file("suite", usual+"cipher-suites: [BOGUS]\n"),
		file("two ways to a cluster", usual+"discovery-srv: example.com\n"),
	}
}

// tlsCases: certificates at start. How connections then behave is tlsmodes'.
func tlsCases() []start {
	const k = "tls"
	secure := []string{"--listen-client-urls=https://{c}", "--advertise-client-urls=https://{c}"}
	pair := []string{"--cert-file={cert}", "--key-file={key}"}
	on := func(name, as string, args ...string) start {
		c := good(k, name, append(append([]string{}, secure...), args...)...)
		c.ask = ask{tls: as}
		return c
	}
	no := func(name string, args ...string) start {
		return bad(k, name, append(append([]string{}, secure...), args...)...)
	}
	plus := func(args ...string) []string { return append(append([]string{}, pair...), args...) }
	unix := on("unixs", "any", plus("--listen-client-urls=unixs://{dir}/s")...)
	unix.ask = ask{tls: "any", grpc: "unix:{dir}/s", health: "-"}
	mixed := on("http and https on one port", "server", plus("--listen-client-urls=http://{c},https://{c}")...)
	plain := good(k, "plain urls with certificates", pair...)
	metrics := good(k, "metrics over https", plus("--listen-metrics-urls=https://{m}")...)
	metrics.ask = ask{}
	junkCA := on("authority is junk", "any", plus("--trusted-ca-file={junk}")...)
	junkCA.ask = ask{grpc: "-", health: "-"}
	junkCA.says = []string{"serving client traffic securely"}
	junkCA.ours = &ours{why: "an authority without a certificate lets nobody in", end: "exit 1", says: []string{"{junk}"}}
	return []start{
		on("server", "server", pair...),
		on("client certificates", "client", plus("--client-cert-auth", "--trusted-ca-file={ca}")...),
		on("authority alone", "client", plus("--trusted-ca-file={ca}")...),
		on("authority, no client certificates wanted by flag", "client", plus("--trusted-ca-file={ca}", "--client-cert-auth=false")...),
		on("revocation list", "client", plus("--client-cert-auth", "--trusted-ca-file={ca}", "--client-crl-file={crl}")...),
		on("suites", "server", plus("--cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384")...),
		on("TLS 1.3 only", "server", plus("--tls-min-version=TLS1.3")...),
		on("TLS 1.2 only", "server", plus("--tls-max-version=TLS1.2")...),
		on("auto", "any", "--auto-tls"),
		on("auto, certificates given too", "server", plus("--auto-tls")...),
		on("auto, validity", "any", "--auto-tls", "--self-signed-cert-validity=3"),
		on("client key pair", "server", plus("--client-cert-file={ccert}", "--client-key-file={ckey}")...),
		unix, mixed, plain, metrics,
		no("no certificate"),
		no("certificate without key", "--cert-file={cert}"),
		no("key without certificate", "--key-file={key}"),
		no("certificate missing", "--cert-file={dir}/none.crt", "--key-file={key}"),
		no("key missing", "--cert-file={cert}", "--key-file={dir}/none.key"),
		worded(no("key of another", "--cert-file={cert}", "--key-file={key2}"), "exit 1", pem, "listener failed | ", "{cert}", "{key2}"),
		worded(no("certificate is junk", "--cert-file={junk}", "--key-file={key}"), "exit 1", pem, "listener failed | ", "certificate {junk}"),
		worded(no("key is junk", "--cert-file={cert}", "--key-file={junk}"), "exit 1", pem, "listener failed | ", "key {junk}"),
		no("authority missing", plus("--trusted-ca-file={dir}/none.pem")...),
		junkCA,
		no("suite unknown", plus("--cipher-suites=BOGUS")...),
		no("suite empty", plus("--cipher-suites=,")...),
		no("client certificate without key", plus("--client-cert-file={ccert}")...),
		no("client key without certificate", plus("--client-key-file={ckey}")...),
		no("auto with validity zero", "--auto-tls", "--self-signed-cert-validity=0"),
		bad(k, "unixs without certificate", "--listen-client-urls=unixs://{dir}/s"),
		bad(k, "metrics over https without certificate", "--listen-metrics-urls=https://{m}"),
		bad(k, "client http over https without certificate", "--listen-client-http-urls=https://{h}"),
		bad(k, "peer over https without certificate", "--listen-peer-urls=https://{p}", "--initial-advertise-peer-urls=https://{p}", "--initial-cluster=m1=https://{p}"),
		bad(k, "peer certificate without key", "--peer-cert-file={cert}"),
		bad(k, "names and hosts of peers", "--peer-cert-allowed-cn=a", "--peer-cert-allowed-hostname=b", "--peer-cert-file={cert}", "--peer-key-file={key}",
			"--listen-peer-urls=https://{p}", "--initial-advertise-peer-urls=https://{p}", "--initial-cluster=m1=https://{p}"),
	}
}

// parser is refused in the words of another parser than Go's.
func parser(c start, says ...string) start {
	c.ours = &ours{why: "the words of a parser are its own", end: "exit 1", says: says}
	return c
}

// listenCases: what is listened on.
func listenCases() []start {
	const k = "listen"
	unix := good(k, "unix socket", "--listen-client-urls=unix://{dir}/s")
	unix.ask = ask{grpc: "unix:{dir}/s", health: "unix:{dir}/s"}
	named := good(k, "unix socket named like an address", "--listen-client-urls=unix://localhost:12345")
	named.ask = ask{grpc: "unix:{dir}/localhost:12345", health: "unix:{dir}/localhost:12345"}
	both := good(k, "unix and tcp", "--listen-client-urls=unix://{dir}/s,http://{c}")
	split := good(k, "gRPC and HTTP apart", "--listen-client-http-urls=http://{h}")
	split.ask = ask{health: "http://{h}"}
	metrics := good(k, "metrics", "--listen-metrics-urls=http://{m}")
	metrics.ask = ask{health: "http://{m}"}
	stale := good(k, "stale unix socket", "--listen-client-urls=unix://{dir}/s")
	stale.ask = unix.ask
	stale.prep = func(dir string) error {
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
		if err != nil {
			return err
		}
		defer syscall.Close(fd)
		return syscall.Bind(fd, &syscall.SockaddrUnix{Name: filepath.Join(dir, "s")})
	}
	return []start{
		unix, named, both, split, metrics, stale,
		bad(k, "client port busy", "--listen-client-urls=http://{busy}"),
		bad(k, "peer port busy", "--listen-peer-urls=http://{busy}"),
		bad(k, "metrics port busy", "--listen-metrics-urls=http://{busy}"),
		bad(k, "client http port busy", "--listen-client-http-urls=http://{busy}"),
		bad(k, "second client port busy", "--listen-client-urls=http://{c},http://{busy}"),
		bad(k, "client and client http are one", "--listen-client-http-urls=http://{c}"),
		bad(k, "client and peer are one", "--listen-peer-urls=http://{c}"),
		bad(k, "foreign address", "--listen-client-urls=http://192.0.2.1:2379"),
		bad(k, "unix socket in no folder", "--listen-client-urls=unix://{dir}/none/s"),
	}
}

// logCases: where the log goes and how it looks.
func logCases() []start {
	const k = "log"
	var all []start
	for _, level := range []string{"debug", "warn", "error", "dpanic", "panic", "fatal"} {
		all = append(all, good(k, "level "+level, "--log-level="+level))
	}
	return append(all,
		good(k, "console", "--log-format=console"),
		good(k, "stdout", "--log-outputs=stdout"),
		good(k, "file", "--log-outputs={dir}/log"),
		good(k, "file and stderr", "--log-outputs={dir}/log,stderr"),
		good(k, "nowhere", "--log-outputs=/dev/null"),
		good(k, "rotation", "--log-outputs={dir}/log", "--enable-log-rotation"),
		good(k, "rotation, own numbers", "--log-outputs={dir}/log", "--enable-log-rotation",
			`--log-rotation-config-json={"maxsize": 1, "maxage": 2, "maxbackups": 3, "localtime": true, "compress": true}`),
		good(k, "zap", "--logger=zap"),
		bad(k, "level bogus", "--log-level=bogus"),
		bad(k, "level upper case bogus", "--log-level=INFORM"),
		bad(k, "format bogus", "--log-format=xml"),
		good(k, "format empty", "--log-format="),
		bad(k, "logger bogus", "--logger=syslog"),
		bad(k, "default with another", "--log-outputs=default,stderr"),
		bad(k, "file in no folder", "--log-outputs={dir}/none/log"),
		bad(k, "rotation without file", "--enable-log-rotation"),
		bad(k, "rotation to stderr", "--enable-log-rotation", "--log-outputs=stderr"),
		bad(k, "rotation of two", "--enable-log-rotation", "--log-outputs={dir}/a,{dir}/b"),
		parser(bad(k, "rotation no json", "--enable-log-rotation", "--log-outputs={dir}/log", "--log-rotation-config-json=nonsense"),
			"improperly formatted log rotation config: "),
		parser(bad(k, "rotation wrong type", "--enable-log-rotation", "--log-outputs={dir}/log", `--log-rotation-config-json={"maxsize": "big"}`),
			"invalid log rotation config: ", "\"big\""),
		bad(k, "rotation empty json", "--enable-log-rotation", "--log-outputs={dir}/log", "--log-rotation-config-json="),
	)
}

// endCases: the ends that are no refusal.
func endCases() []start {
	const k = "end"
	interrupt := good(k, "SIGINT")
	interrupt.stop = syscall.SIGINT
	return []start{
		good(k, "SIGTERM"),
		interrupt,
		only(k, "--version", "--version"),
		only(k, "-version=true", "-version=true"),
		only(k, "version and faults of validation", "--version", "--heartbeat-interval=0"),
		only(k, "version and a bad value", "--version", "--heartbeat-interval=x"),
		only(k, "version and an unknown flag", "--version", "--no-such-flag"),
		only(k, "version and a stray word", "--version", "foo"),
		only(k, "--help", "--help"),
		only(k, "-h", "-h"),
		only(k, "-help", "-help"),
		only(k, "help and other flags", "--name=x", "-h", "--no-such-flag"),
		only(k, "an unknown flag before help", "--no-such-flag", "-h"),
		only(k, "--help=x", "--help=x"),
	}
}

// oldCases: flags of older versions.
func oldCases() []start {
	const k = "old"
	taken := func(c start, says ...string) start {
		c.ours = &ours{why: "command lines of 3.4 to 3.6 start, with a warning", up: true, says: says}
		return c
	}
	return []start{
		good(k, "ignored", "--snapshot=true", "--v", "--vv=2", "--force", "--cluster-active-size=9", "--peer-heartbeat-interval=1"),
		good(k, "ignored config", "--config=/no/such/file"),
		good(k, "ignored test flags", "--test.coverprofile=x", "--test.outputdir=y"),
		bad(k, "ignored config, value apart", "--config", "/no/such/file"),
		taken(bad(k, "experimental duration", "--experimental-watch-progress-notify-interval=5s"), "experimental-watch-progress-notify-interval"),
		taken(bad(k, "experimental number", "--experimental-compaction-batch-limit=100"), "experimental-compaction-batch-limit"),
		taken(bad(k, "experimental gate", "--experimental-enable-lease-checkpoint=true"), "experimental-enable-lease-checkpoint"),
		taken(bad(k, "experimental corrupt check", "--experimental-initial-corrupt-check=true"), "experimental-initial-corrupt-check"),
		taken(bad(k, "experimental warning", "--experimental-warning-apply-duration=1s"), "experimental-warning-apply-duration"),
		taken(bad(k, "capnslog", "--logger=capnslog"), "capnslog"),
		taken(bad(k, "proxy off", "--proxy=off"), "proxy"),
		taken(bad(k, "debug", "--debug=true"), "debug"),
		bad(k, "discovery url", "--discovery=https://discovery.example/abc"),
	}
}

// dirCases: the data directory.
func dirCases() []start {
	const k = "dir"
	prep := func(c start, do func(dir string) error) start {
		c.prep = do
		return c
	}
	mkdir := func(names ...string) func(string) error {
		return func(dir string) error {
			for _, name := range names {
				if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
					return err
				}
			}
			return nil
		}
	}
	inTheWay := func(dir string) error { return os.WriteFile(filepath.Join(dir, "data"), []byte("x"), 0o600) }
	unnamed := only(k, "default folder follows the working directory", "--listen-client-urls=http://{c}", "--advertise-client-urls=http://{c}",
		"--listen-peer-urls=http://{p}", "--initial-advertise-peer-urls=http://{p}", "--initial-cluster=default=http://{p}")
	unnamed.up = true
	unnamed.says = []string{"default.etcd"}
	return []start{
		good(k, "made with its parents", "--data-dir={dir}/a/b/data"),
		good(k, "own log folder", "--wal-dir={dir}/wal"),
		prep(good(k, "there and empty"), mkdir("data")),
		prep(good(k, "other things beside"), mkdir("data/lost+found")),
		good(k, "relative", "--data-dir=here"),
		unnamed,
		worded(prep(bad(k, "a file in the way"), inTheWay), "exit 1", system, "failed to list data directory | ", "{dir}/data: not a directory"),
		prep(bad(k, "member and proxy"), mkdir("data/member", "data/proxy")),
		prep(bad(k, "only proxy"), mkdir("data/proxy")),
		worded(prep(bad(k, "log folder is a file", "--wal-dir={dir}/data"), inTheWay), "exit 1", system, "failed to list data directory | ", "{dir}/data: not a directory"),
	}
}
