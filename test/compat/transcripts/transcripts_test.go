// Package transcripts types what documents about etcd print, as printed: a
// shell with `etcd` and `etcdctl` in its PATH, the default ports, the default
// folder. Each script runs in a network of its own, once with etcd's programs
// and once with ours.
//
//	script ─┬─► sh, PATH = etcd's programs ─► output ─┐
//	        └─► sh, PATH = our programs ────► output ─┴─► equal, and as printed?
package transcripts

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"milepost.dev/test/compat/harness"
)

// scriptWithin bounds one script.
const scriptWithin = 2 * time.Minute

// insideVar marks the run of this program that sets up a script's network.
const insideVar = "TRANSCRIPTS_SCRIPT"

// TestMain is also the first program in a script's network: it raises the
// loopback device there and becomes the shell.
func TestMain(m *testing.M) {
	script := os.Getenv(insideVar)
	if script == "" {
		os.Exit(m.Run())
	}
	if err := raiseLoopback(); err != nil {
		fmt.Fprintln(os.Stderr, "no loopback:", err)
		os.Exit(1)
	}
	env := append(os.Environ(), insideVar+"=")
	err := syscall.Exec("/bin/sh", []string{"sh", "-c", script}, env)
	fmt.Fprintln(os.Stderr, "no shell:", err)
	os.Exit(1)
}

// raiseLoopback gives this network 127.0.0.1, and the address of a machine in
// one of the documents.
func raiseLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for name, address := range map[string][]byte{"lo": {127, 0, 0, 1}, "lo:1": {172, 31, 22, 142}} {
		req, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		if err := req.SetInet4Addr(address); err != nil {
			return err
		}
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFADDR, req); err != nil {
			return err
		}
		req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
		if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
			return err
		}
	}
	return nil
}

// tools makes a folder that holds etcd and etcdctl of one kind.
func tools(t *testing.T, ours bool) string {
	t.Helper()
	dir := t.TempDir()
	etcd, ctl := harness.Reference(t).Path, harness.BuildTool(t, "refctl")
	if ours && !harness.SubjectIsReference(t) {
		etcd = harness.Subject(t).Path
		ctl = etcd // one program, told apart by its name
	}
	for name, target := range map[string]string{"etcd": etcd, "etcdctl": ctl} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// prelude is what every script may use.
const prelude = `
up() { # waits for the member to answer
	n=0
	until etcdctl "$@" endpoint health >/dev/null 2>&1; do
		n=$((n+1)); [ $n -lt 300 ] || { echo "no answer"; tail -n 5 log; exit 1; }
		sleep 0.1
	done
}
serve() { etcd "$@" >>log 2>&1 & pid=$!; up; }
stop() { kill $pid; wait $pid; echo "ended with $?"; }
`

func run(t *testing.T, bin, script string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), scriptWithin)
	defer cancel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Dir = t.TempDir()
	cmd.Env = []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + cmd.Dir, "LANG=C.UTF-8", insideVar + "=" + prelude + script}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWNET | syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		// The shell is the first process of its own tree: all that it has
		// started ends with it.
		Pdeathsig: syscall.SIGKILL,
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Run(); err != nil {
		fmt.Fprintf(&out, "the script ended with: %v\n", err)
	}
	// The client's log has times and addresses; its errors stand by themselves.
	var lines []string
	for line := range strings.Lines(out.String()) {
		// Whether the shell says that its child was terminated is up to it.
		if !strings.HasPrefix(line, `{"level":`) && line != "Terminated\n" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// transcript is one script and what a document says that it prints.
type transcript struct {
	name, source, script string
	// prints must be in the output, in this order.
	prints []string
	// better is why and what ours prints where it does more than etcd.
	better string
	ours   []string
}

func transcripts() []transcript {
	return []transcript{
		{name: "start without flags", source: "A3", script: `
serve
etcdctl member list
etcdctl -w json member list | tr ',' '\n' | grep -o '"cluster_id":[0-9]*'
ls -d default.etcd default.etcd/member default.etcd/member/snap default.etcd/member/wal
stop`, prints: []string{"8e9e05c52164694d, started, default, http://localhost:2380, http://localhost:2379, false", `"cluster_id":14841639068965178418`, "default.etcd/member/wal", "ended with 143"}},
		{name: "the start tells everything", source: "A4", script: `
serve
for text in '"etcd-version":"3.7.1"' '"git-sha"' 'default.etcd' '"data-dir"' '"member-dir"' '"heartbeat-interval":"100ms"' '"election-timeout":"1s"' '"snapshot-count":10000' \
	'"initial-advertise-peer-urls":\["http://localhost:2380"\]' '"listen-peer-urls":\["http://localhost:2380"\]' '"advertise-client-urls":\["http://localhost:2379"\]' \
	'"listen-client-urls":\["http://localhost:2379"\]' '"initial-cluster":"default=http://localhost:2380"' '"initial-cluster-state":"new"' '"initial-cluster-token":"etcd-cluster"' \
	'8e9e05c52164694d became follower at term 1' '8e9e05c52164694d became candidate at term 2' '8e9e05c52164694d became leader at term 2' \
	'elected leader 8e9e05c52164694d at term 2' 'cdf818194e3a8c32' 'published local member to cluster through raft' 'set initial cluster version' \
	'enabled capabilities for version' 'ready to serve client requests' 'strongly discouraged'; do
	grep -q -- "$text" log && echo "told: $text" || echo "not told: $text"
done
stop`, prints: []string{"told: ", "ended with 143"}},
		{name: "settings by variables", source: "A6", script: `
export ETCD_NAME=$(hostname -s) ETCD_DATA_DIR=$PWD/var/lib/etcd
serve
etcdctl member list | cut -d, -f2- | sed "s/$(hostname -s)/HOST/g"
ls -d var/lib/etcd/member
stop`, prints: []string{"started, HOST, http://localhost:2380, http://localhost:2379, false", "var/lib/etcd/member"}},
		{name: "version", source: "A7", script: `etcd --version | cut -d: -f1; etcd --version | head -n 1; etcdctl version`, prints: []string{
			"etcd Version\nGit SHA\nGo Version\nGo OS/Arch\n", "etcd Version: 3.7.1", "etcdctl version: 3.7.1\nAPI version: 3.7"}},
		{name: "any folder", source: "A8", script: `
mkdir -p some/where && cd some/where
serve
etcdctl put a b; etcdctl get a
stop
ls -d default.etcd`, prints: []string{"OK\na\nb\n", "default.etcd"}},
		{name: "list of keys", source: "A24", script: `
serve
etcdctl put /registry/a 1; etcdctl put /registry/b 2; etcdctl put other 3
etcdctl get / --prefix --keys-only
stop`, prints: []string{"OK\nOK\nOK\n/registry/a\n\n/registry/b\n\n"}},
		{name: "dashes as typeset", source: "A24", script: `
serve
etcdctl put /registry/a 1
etcdctl get / –prefix –keys-only; echo "status $?"
stop`, prints: []string{"OK\n", "status 0"}, better: "a pasted en dash gets a hint", ours: []string{"–prefix", "--prefix", "status "}},
		{name: "brackets around the endpoints", source: "A25", script: `
serve --listen-client-urls http://127.0.0.1:2379,http://172.31.22.142:2379 --advertise-client-urls http://172.31.22.142:2379
etcdctl put a b
etcdctl --command-timeout=2s --endpoints=[172.31.22.142:2379] get a; echo "status $?"
stop`, prints: []string{"OK\n", "status 1"}, better: "the document's brackets are taken", ours: []string{"OK\n", "a\nb\n", "status 0"}},
		{name: "values with arrows and colons", source: "A26", script: `
serve
etcdctl put KEY 'io.test.baidu.com:443->172.31.19.1:8085'
etcdctl get KEY
etcdctl del KEY
etcdctl get KEY
stop`, prints: []string{"OK\nKEY\nio.test.baidu.com:443->172.31.19.1:8085\n1\n"}},
		{name: "one slash too few", source: "A30", script: `
etcd --listen-client-urls http:/10.240.0.19:2379 >out 2>&1; echo "status $?"
head -n 1 out`, prints: []string{"status 2", `invalid value "http:/10.240.0.19:2379" for flag -listen-client-urls: URL address does not have the form "host:port": http:/10.240.0.19:2379`}},
		{name: "a command cut off", source: "A31", script: `
serve
export ETCDCTL_API=3
etcdctl --endpoints=127.0.0.1:2379,localhost:2379,127.0.0.1:2379 member lis
stop`, prints: []string{"8e9e05c52164694d, started, default"}},
		{name: "put and delete", source: "A32", script: `
serve
etcdctl --endpoints=http://127.0.0.1:2379 put q1mi "dsb2"
etcdctl --endpoints=http://127.0.0.1:2379 get q1mi
etcdctl --endpoints=http://127.0.0.1:2379 del q1mi
stop`, prints: []string{"OK\nq1mi\ndsb2\n1\n"}},
		{name: "a folder made before", source: "A33", script: `
mkdir -p var/lib/etcd; chmod 700 var/lib/etcd
serve --data-dir var/lib/etcd
etcdctl put a b
stop
stat -c %a var/lib/etcd`, prints: []string{"OK\n", "700"}},
		{name: "curl", source: "C1", script: `
serve
curl -s http://localhost:2379/v3/kv/put -X POST -d '{"key": "Zm9v", "value": "YmFy"}' | tr -d ' ' | grep -o '"revision":"2"'
curl -s http://localhost:2379/v3/kv/range -X POST -d '{"key": "Zm9v"}' | tr -d ' ' | grep -o '"kvs":.*'
until curl -s http://localhost:2379/version | grep -q '"storage":"3.7'; do sleep 0.1; done
curl -s http://localhost:2379/version; echo
stop`, prints: []string{`"revision":"2"`, `"value":"YmFy"`, `{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}`}},
		{name: "automatic TLS", source: "C3", script: `
etcd --auto-tls --listen-client-urls https://127.0.0.1:2379 --advertise-client-urls https://127.0.0.1:2379 >>log 2>&1 & pid=$!
up --endpoints=https://127.0.0.1:2379 --insecure-skip-tls-verify
etcdctl --endpoints=https://127.0.0.1:2379 --insecure-skip-tls-verify put a b
etcdctl --endpoints=https://127.0.0.1:2379 --cacert default.etcd/fixtures/client/cert.pem get a
stop`, prints: []string{"OK\na\nb\n", "ended with 143"}},
		{name: "what was answered stays", source: "C10", script: `
serve
for n in 1 2 3 4 5; do etcdctl put k$n v$n; done
kill -9 $pid; wait $pid 2>/dev/null; echo "ended with $?"
serve
etcdctl get k --prefix
stop`, prints: []string{"ended with 137", "k1\nv1\nk2\nv2\nk3\nv3\nk4\nv4\nk5\nv5\n"}},
		{name: "watch beside writes", source: "C13", script: `
serve
timeout 60 etcdctl watch --prefix /node --rev 1 >seen 2>&1 & watcher=$!
etcdctl put /node/111 heiheihei
etcdctl del /node/111
n=0; until [ "$(wc -l <seen)" -ge 6 ]; do n=$((n+1)); [ $n -lt 300 ] || break; sleep 0.1; done
kill $watcher
cat seen
stop`, prints: []string{"OK\n1\nPUT\n/node/111\nheiheihei\nDELETE\n/node/111\n"}},
		{name: "keys that live as long as a lease", source: "C13", script: `
serve
lease=$(etcdctl lease grant 3600 | cut -d' ' -f2)
etcdctl put --lease=$lease /node/111 heiheihei
etcdctl lease timetolive $lease --keys | grep -o 'attached keys(.*'
etcdctl lease keep-alive --once $lease | sed "s/$lease/LEASE/"
etcdctl lease revoke $lease | sed "s/$lease/LEASE/"
etcdctl get /node --prefix
stop`, prints: []string{"OK\nattached keys([/node/111])\nlease LEASE keepalived with TTL(3600)\nlease LEASE revoked\n"}},
	}
}

// inOrder finds the parts one behind the other.
func inOrder(text string, parts []string) error {
	rest := text
	for _, part := range parts {
		_, after, found := strings.Cut(rest, part)
		if !found {
			return fmt.Errorf("%q is not there, in its place", part)
		}
		rest = after
	}
	return nil
}

// TestTranscripts runs each script with both sets of programs.
func TestTranscripts(t *testing.T) {
	etcds, ours := tools(t, false), tools(t, true)
	same := harness.SubjectIsReference(t)
	all := transcripts()
	for _, c := range all {
		t.Run(c.source+"/"+c.name, func(t *testing.T) {
			t.Parallel()
			ref := run(t, etcds, c.script)
			if err := inOrder(ref, c.prints); err != nil {
				t.Errorf("etcd's programs: %v\n%s", err, ref)
			}
			sub := run(t, ours, c.script)
			switch {
			case c.better != "" && !same:
				if err := inOrder(sub, c.ours); err != nil {
					t.Errorf("%s, but %v\n%s", c.better, err, sub)
				}
			case ref != sub:
				t.Errorf("%s\netcd's programs print\n%s\nours print\n%s", c.script, ref, sub)
			}
		})
	}
	t.Logf("%d transcripts", len(all))
}
