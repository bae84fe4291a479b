package ctl

import (
	"strings"
	"testing"
)

// Every command, for its page.
var commands = []string{
	"alarm", "alarm disarm", "alarm list", "auth", "auth disable", "auth enable", "auth status", "check",
	"check datascale", "check perf", "compaction", "elect", "lease keep-alive", "lock", "make-mirror", "snapshot",
	"snapshot save", "watch",
	"completion", "defrag", "del", "downgrade", "downgrade cancel", "downgrade enable", "downgrade validate",
	"endpoint", "endpoint hashkv", "endpoint health", "endpoint status", "get", "help", "lease", "lease grant",
	"lease list", "lease revoke", "lease timetolive", "member", "member add", "member list", "member promote",
	"member remove", "member update", "move-leader", "options", "put", "role", "role add", "role delete", "role get",
	"role grant-permission", "role list", "role revoke-permission", "txn", "user", "user add", "user delete", "user get",
	"user grant-role", "user list", "user passwd", "user revoke-role", "version",
}

func TestPages(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	for _, command := range commands {
		words := strings.Fields(command)
		s.page().do(append(words, "--help")...)
		s.page().do(append([]string{"help"}, words...)...)
		if command != "help" && command != "options" && command != "version" {
			s.do(append(words, "--bogus")...)
		}
	}
	s.do("version")
	s.page().do("options")
	s.page().do("--help")
	s.page().do()
	s.page().do("help", "--", "lease")
	s.end(140)
}

func TestCommandLine(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.do("put", "k", "v")
	for _, line := range [][]string{
		// Where flags may stand, and how they may be written.
		{"-w", "json", "get", "k"}, {"get", "-w=json", "k"}, {"get", "k", "-wjson"}, {"get", "k", "--write-out", "json"},
		{"--hex=true", "get", "k"}, {"--hex=F", "get", "k"}, {"--hex", "false", "get", "k"}, {"get", "--prefix=1", "k"},
		{"get", "--rev", "0x1", "k"}, {"get", "--limit=1_0", "k"}, {"get", "--", "k"}, {"get", "k", "--", "--prefix"},
		{"--dial-timeout=1s", "--command-timeout", "4s", "get", "k"}, {"get", "k", "--command-timeout=-1s"},
		{"get", "k", "--keepalive-time", "1h", "--keepalive-timeout=1.5m"},
		{"get", "k", "--max-request-bytes=10", "--max-recv-bytes=1000000"},
		// Unique beginnings of names, and others.
		{"ver"}, {"vers"}, {"comp", "1"}, {"member", "l"}, {"mem", "lis"}, {"g", "k"}, {"end", "hashk"},
		{"x"}, {"bogus"}, {"gett"}, {"PUT"}, {"lees"}, {"d"}, {"put ", "a"}, {"set", "k", "v"},
		// What is wrong with flags.
		{"get", "k", "--limit"}, {"get", "k", "--limit", "x"}, {"get", "k", "--limit=99999999999999999999"},
		{"get", "k", "--prefix=perhaps"}, {"get", "k", "--=x"}, {"get", "k", "---x"}, {"get", "k", "-x"},
		{"get", "k", "-w"}, {"get", "k", "-hw"}, {"get", "k", "--command-timeout=5"}, {"get", "k", "--command-timeout=x"},
		{"get", "k", "--max-recv-bytes=x"}, {"--endpoints", "a\"b", "get", "k"},
		{"txn", "-ix"}, {"lease", "grant", "-1"},
		{"--cert=absent.pem", "get", "k"}, {"--cert=absent.pem", "--key=absent.key", "get", "k"},
		{"--cacert=absent.pem", "get", "k"}, {"--cert=", "get", "k"}, {"--key=", "get", "k"}, {"--cacert=", "get", "k"},
		{"completion"}, {"completion", "tcsh"}, {"completion", "bash", "zsh"},
	} {
		s.do(line...)
	}
	s.page().do("help", "bogus")
	s.page().do("lease", "bogus")
	s.page().do("")
	s.do("--version")
	s.page().do("member", "--help", "list")
	s.page().do("endpoint", "-h", "health")
	s.end(50)
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.do("put", "k", "v")
	s.with("ETCDCTL_WRITE_OUT=json").do("get", "k")
	s.with("ETCDCTL_HEX=1").do("get", "k")
	s.with("ETCDCTL_HEX=").do("get", "k")
	s.with("ETCDCTL_API=3", "ETCDCTL_UNKNOWN=x y").do("get", "k")
	s.with("ETCDCTL_WRITE_OUT=json").do("get", "k", "-w", "json")
	s.with("ETCDCTL_WRITE_OUT=bogus").do("get", "k")
	s.with("ETCDCTL_CACERT=absent.pem").do("get", "k")
	s.with("ETCDCTL_WATCH_KEY=x").do("get", "k")
	s.with("ETCDCTL_PREFIX=true").do("get", "k")
	s.elsewhere().with("ETCDCTL_ENDPOINTS=$EP").do("get", "k", "--endpoints", "$EP")
	s.elsewhere().do("get", "k", "--endpoints", "$EP")
	s.elsewhere().do("get", "k", "--endpoints", "http://$EP")
	s.elsewhere().do("get", "k", "--endpoints", " $EP ,$EP")
	s.elsewhere().do("endpoint", "hashkv", "--endpoints", "$EP,http://$EP")
	s.elsewhere().do("get", "k", "--endpoints", "")
	s.elsewhere().do("get", "k", "--endpoints", "127.0.0.1:1", "--command-timeout=300ms")
	s.elsewhere().do("put", "k", "v", "--endpoints", "127.0.0.1:1", "--command-timeout=300ms")
	s.elsewhere().do("endpoint", "status", "--endpoints", "127.0.0.1:1", "--command-timeout=300ms")
	s.elsewhere().do("endpoint", "health", "--endpoints", "127.0.0.1:1", "--command-timeout=300ms", "-w", "json")
	s.elsewhere().do("endpoint", "hashkv", "--endpoints", "127.0.0.1:1", "--command-timeout=300ms", "-w", "json")
	s.elsewhere().do("defrag", "--endpoints", "127.0.0.1:1", "--command-timeout=300ms")
	s.elsewhere().do("get", "k", "--endpoints", "127.0.0.1:1,$EP")
	s.end(20)
}
