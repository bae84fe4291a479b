package clients

import (
	"bufio"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"milepost.dev/test/compat/harness"
)

// etcdctl is Debian's etcdctl 3.4 pointed at one server.
type etcdctl struct {
	t    *testing.T
	path string
	env  []string
}

func newEtcdctl(t *testing.T, server *harness.Server) etcdctl {
	t.Helper()
	path := need(t, "etcdctl", "run `apt-get install etcd-client`")
	return etcdctl{t, path, []string{"ETCDCTL_API=3", "ETCDCTL_ENDPOINTS=" + server.ClientURL}}
}

// says runs a command and demands exactly this output and exit code 0.
func (c etcdctl) says(want string, args ...string) {
	c.t.Helper()
	c.saysFor("", want, args...)
}

func (c etcdctl) saysFor(stdin, want string, args ...string) {
	c.t.Helper()
	r := run(c.t, c.t.TempDir(), stdin, c.env, append([]string{c.path}, args...)...)
	if r.code != 0 || r.out != want {
		c.t.Errorf("etcdctl %s: exit %d, printed %q, wanted %q\n%s", strings.Join(args, " "), r.code, r.out, want, r.errs)
	}
}

// matches runs a command and returns the pattern's groups.
func (c etcdctl) matches(pattern string, args ...string) []string {
	c.t.Helper()
	r := run(c.t, c.t.TempDir(), "", c.env, append([]string{c.path}, args...)...)
	groups := regexp.MustCompile(pattern).FindStringSubmatch(r.out)
	if r.code != 0 || groups == nil {
		c.t.Fatalf("etcdctl %s: exit %d, printed %q, wanted /%s/\n%s", strings.Join(args, " "), r.code, r.out, pattern, r.errs)
	}
	return groups
}

// fails runs a command and demands a failure that says something.
func (c etcdctl) fails(code int, pattern string, args ...string) {
	c.t.Helper()
	r := run(c.t, c.t.TempDir(), "", c.env, append([]string{c.path}, args...)...)
	if r.code != code || !regexp.MustCompile(pattern).MatchString(r.errs) {
		c.t.Errorf("etcdctl %s: exit %d, complained %q, wanted exit %d and /%s/", strings.Join(args, " "), r.code, r.errs, code, pattern)
	}
}

func TestEtcdctlKeys(t *testing.T) {
	c := newEtcdctl(t, start(t))
	c.says("OK\n", "put", "foo", "bar")
	c.says("foo\nbar\n", "get", "foo")
	c.says("bar\n", "get", "foo", "--print-value-only")
	c.says("", "get", "none")
	c.says("OK\nfoo\nbar\n", "put", "foo", "bar2", "--prev-kv")
	c.says("OK\n", "put", "foo1", "a")
	c.says("OK\n", "put", "foo2", "b")
	c.says("foo\n\nfoo1\n\nfoo2\n\n", "get", "foo", "--prefix", "--keys-only")
	c.says("foo2\nb\nfoo1\na\n", "get", "foo1", "--from-key", "--order=DESCEND", "--sort-by=KEY")
	c.says("foo\nbar\n", "get", "foo", "--rev=2")
	c.says("foo\nbar2\n", "get", "foo", "--prefix", "--limit=1")
	c.matches(`"Count" : 3`, "get", "foo", "--prefix", "--limit=1", "--write-out=fields")
	c.says("1\nfoo\nbar2\n", "del", "foo", "--prev-kv")
	c.says("2\n", "del", "foo", "--prefix")
	c.says("0\n", "del", "foo")
	c.saysFor("from stdin", "OK\n", "put", "long")
	c.says("long\nfrom stdin\n", "get", "long")
	c.says("compacted revision 3\n", "compaction", "3")
	c.fails(1, "required revision has been compacted", "get", "foo", "--rev=2")
	c.fails(1, "required revision is a future revision", "get", "foo", "--rev=999")
	c.fails(1, "key is not provided", "put", "", "x")
}

func TestEtcdctlTxn(t *testing.T) {
	c := newEtcdctl(t, start(t))
	c.says("OK\n", "put", "key", "old")
	request := "value(\"key\") = \"old\"\n\nput key new\nget key\n\nget other\n\n"
	c.saysFor(request, "SUCCESS\n\nOK\n\nkey\nnew\n", "txn")
	c.saysFor(request, "FAILURE\n\n", "txn")
	c.saysFor("mod(\"key\") > \"2\"\n\ndel key\n\nput key x\n\n", "SUCCESS\n\n1\n", "txn")
}

func TestEtcdctlLease(t *testing.T) {
	c := newEtcdctl(t, start(t))
	id := c.matches(`^lease ([0-9a-f]+) granted with TTL\(100s\)\n$`, "lease", "grant", "100")[1]
	c.says("OK\n", "put", "leased", "v", "--lease="+id)
	c.matches(`^lease `+id+` granted with TTL\(100s\), remaining\((99|100)s\), attached keys\(\[leased\]\)\n$`, "lease", "timetolive", id, "--keys")
	c.matches(`^lease `+id+` keepalived with TTL\(100\)\n$`, "lease", "keep-alive", "--once", id)
	c.says("found 1 leases\n"+id+"\n", "lease", "list")
	c.says("lease "+id+" revoked\n", "lease", "revoke", id)
	c.says("", "get", "leased")
	c.says("lease "+id+" already expired\n", "lease", "timetolive", id)
	c.fails(1, "requested lease not found", "lease", "revoke", id)
}

// TestEtcdctlWatch reads the watcher's output line by line while another
// etcdctl writes.
func TestEtcdctlWatch(t *testing.T) {
	c := newEtcdctl(t, start(t))
	c.says("OK\n", "put", "w", "before")
	cmd := exec.Command(c.path, "watch", "w", "--prefix", "--prev-kv", "--rev=2")
	cmd.Env = append(cmd.Environ(), c.env...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it would watch for ever
		_ = cmd.Wait()
	})
	lines := bufio.NewScanner(out)
	expect := func(want ...string) {
		t.Helper()
		for _, line := range want {
			if !lines.Scan() || lines.Text() != line {
				t.Fatalf("the watcher printed %q, wanted %q", lines.Text(), line)
			}
		}
	}
	expect("PUT", "w", "before")
	c.says("OK\n", "put", "w1", "a")
	expect("PUT", "w1", "a")
	c.says("OK\n", "put", "w1", "b")
	expect("PUT", "w1", "a", "w1", "b")
	c.says("1\n", "del", "w1")
	expect("DELETE", "w1", "b", "w1", "")
}

func TestEtcdctlEndpoint(t *testing.T) {
	server := start(t)
	c := newEtcdctl(t, server)
	c.matches(`^[0-9a-f]{15,16}, started, m1, `+regexp.QuoteMeta(server.PeerURL)+", "+regexp.QuoteMeta(server.ClientURL)+", false\n$", "member", "list")
	c.matches(`^`+regexp.QuoteMeta(server.ClientURL)+`, [0-9a-f]{15,16}, 3\.[0-9.]+, .* true, false, \d+, \d+, \d+, \n$`, "endpoint", "status")
	c.matches(`^`+regexp.QuoteMeta(server.ClientURL)+`, \d+\n$`, "endpoint", "hashkv")
	c.matches(``, "endpoint", "health")
	c.says("", "alarm", "list")
}
