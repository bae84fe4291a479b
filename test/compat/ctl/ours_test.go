package ctl

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"milepost.dev/test/compat/harness"
)

// our is our tool under the name etcdctl, with one of etcd's servers.
type our struct {
	t    *testing.T
	pair *pair
}

func newOur(t *testing.T) our {
	t.Helper()
	harness.NeedOwnSubject(t)
	_, tool := tools(t)
	dir := t.TempDir()
	name := filepath.Join(dir, "etcdctl")
	// The name alone says which program it is.
	if err := os.Symlink(tool[0], name); err != nil {
		t.Fatal(err)
	}
	server := harness.Start(t, harness.Reference(t), harness.Options{NoSync: true})
	return our{t, &pair{name: "our tool", tool: []string{name}, server: server, dir: dir}}
}

func (o our) run(s step) result {
	o.t.Helper()
	r, err := o.pair.run(s)
	if err != nil {
		o.t.Fatalf("etcdctl %q: %v", s.args, err)
	}
	return r
}

func (o our) wants(s step, code int, out, errs string) {
	o.t.Helper()
	r := o.run(s)
	if r.code != code || r.out != out || !strings.Contains(r.errs, errs) || (errs == "" && r.errs != "") {
		o.t.Errorf("etcdctl %q: code %d, stdout %q, stderr %q; wanted %d, %q, …%q…", s.args, r.code, r.out, r.errs, code, out, errs)
	}
}

// What documents show and people paste works, or gets a hint, where etcd's
// tool waits, panics or takes a flag for a key.
func TestPasted(t *testing.T) {
	t.Parallel()
	o := newOur(t)
	line := func(args ...string) step { return step{args: args} }
	away := func(args ...string) step { return step{args: args, elsewhere: true} }
	o.wants(line("put", "q1mi", "dsb2"), 0, "OK\n", "")
	o.wants(away("--endpoints=[$EP]", "get", "q1mi"), 0, "q1mi\ndsb2\n", "")
	o.wants(away("--endpoints=[ $EP , http://$EP ]", "get", "q1mi"), 0, "q1mi\ndsb2\n", "")
	o.wants(away("--endpoints=$EP,$EP,$EP", "member", "lis", "--consistency", "s", "-w", "protobuf"), 0,
		o.run(line("member", "list", "-w", "protobuf")).out, "")
	o.wants(line("put", "test", "io.test.baidu.com:443->172.31.19.1:8085"), 0, "OK\n", "")
	o.wants(line("get", "test"), 0, "test\nio.test.baidu.com:443->172.31.19.1:8085\n", "")
	o.wants(line("get", "/", "–prefix", "–keys-only"), 128, "", "did you mean --prefix?")
	o.wants(line("get", "/", "—write-out=json"), 128, "", "did you mean --write-out=json?")
	o.wants(line("put", "--", "–prefix", "v"), 0, "OK\n", "")
	o.wants(line("get", "--", "–prefix"), 0, "–prefix\nv\n", "")
	o.wants(line("get", "–unknown"), 0, "", "")
	o.wants(line("del", "q1mi"), 0, "1\n", "")
	o.wants(line("gte", "k"), 1, "", "Did you mean this?\n\tget\n")
}

func TestBetter(t *testing.T) {
	t.Parallel()
	o := newOur(t)
	grant := o.run(step{args: []string{"lease", "grant", "500"}})
	id := granted.FindStringSubmatch(grant.out)[1]
	o.run(step{args: []string{"put", "k", "v", "--lease", id}})
	txn := func(text string) step { return step{args: []string{"txn"}, in: text} }
	o.wants(txn("lease(\"k\") = \""+id+"\"\n\nget k\n\n\n"), 0, "SUCCESS\n\nk\nv\n", "")
	o.wants(txn("lease(\"k\") = \"0\"\n\n\n\n"), 0, "FAILURE\n", "")
	o.wants(txn("mod(\"k\") <> \"0\"\n\n\n\n"), 3, "", "use =, !=, > or <")
	o.wants(txn("\nput -h\n\n\n"), 3, "", "invalid txn request: put -h")
	o.wants(txn("\nhelp put\n\n\n"), 3, "", "invalid txn request: help put")
	o.wants(step{args: []string{"get", "k"}, env: []string{"ETCDCTL_HEX=perhaps"}}, 0, "k\nv\n", "ETCDCTL_HEX")
	o.wants(step{args: []string{"member", "list", "--consistency=x"}}, 4, "", "unknown consistency flag \"x\"")
	o.wants(step{args: []string{"--debug", "--user=u:secret", "get", "k"}}, 0, "k\nv\n", "ETCDCTL_USER=(not shown)")
	o.wants(step{args: []string{"--discovery-srv=example.invalid", "get", "k"}}, 1, "", "dns lookup errors")
	o.wants(step{args: []string{"get", "k"}, env: []string{"ETCDCTL_COMMAND_TIMEOUT=1ns"}}, 1, "", "context deadline exceeded")
}

// The scripts complete words in the shells that are there; bash must be.
func TestCompletion(t *testing.T) {
	t.Parallel()
	o := newOur(t)
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Fatal("bash is not installed: apt-get install bash")
	}
	complete := func(words string) string {
		t.Helper()
		script := `source <(etcdctl completion bash); COMP_WORDS=(` + words + `); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
			_etcdctl etcdctl "${COMP_WORDS[COMP_CWORD]}"; echo "${COMPREPLY[*]}"`
		ctx, cancel := context.WithTimeout(context.Background(), within)
		defer cancel()
		cmd := exec.CommandContext(ctx, bash, "-c", script)
		cmd.Env = append(environment(), "PATH="+o.pair.dir+":"+os.Getenv("PATH"))
		cmd.Dir = o.pair.dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("completing %q: %v\n%s", words, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	for words, want := range map[string]string{
		`etcdctl mem`:                  "member",
		`etcdctl member a`:             "add",
		`etcdctl --hex lease ""`:       "grant keep-alive list revoke timetolive",
		`etcdctl get --sort-by V`:      "VALUE VERSION",
		`etcdctl get --print`:          "--print-value-only",
		`etcdctl snapshot save etcdc`:  "etcdctl",
		`etcdctl completion z`:         "zsh",
		`etcdctl get k -w p`:           "protobuf",
		`etcdctl role grant-permis`:    "grant-permission",
		`etcdctl put --lease 12 --pre`: "--prev-kv",
	} {
		if got := complete(words); got != want {
			t.Errorf("%s completes to %q, not %q", words, got, want)
		}
	}
	for shell, first := range map[string]string{
		"bash": "# bash completion for etcdctl", "zsh": "#compdef etcdctl", "fish": "# fish completion for etcdctl",
		"powershell": "# powershell completion for etcdctl",
	} {
		if r := o.run(step{args: []string{"completion", shell}}); !strings.HasPrefix(r.out, first) {
			t.Errorf("%s's script begins with %.40q", shell, r.out)
		}
	}
}
