package ctl

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"milepost.dev/test/compat/harness"
)

func TestSnapshots(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.do("put", "k", "v")
	s.unordered().do("snapshot", "save", "one.db")
	s.unordered().do("--command-timeout=10s", "snapshot", "save", "./two.db")
	for _, p := range s.pairs {
		for _, name := range []string{"one.db", "two.db"} {
			info, err := os.Stat(filepath.Join(p.dir, name))
			if err != nil || info.Mode() != 0o600 || info.Size()%512 != 32 {
				t.Errorf("%s: %s: %v, %v", p.name, name, info, err)
			}
		}
		if left, _ := filepath.Glob(filepath.Join(p.dir, "*.part")); len(left) > 0 {
			t.Errorf("%s: left behind: %v", p.name, left)
		}
	}
	s.do("snapshot", "save")
	s.do("snapshot", "save", "a", "b")
	s.do("snapshot", "save", "absent/dir.db")
	s.do("snapshot", "save", "-w", "xml", "x.db")
	s.elsewhere().do("snapshot", "save", "x.db", "--endpoints", "$EP,$EP")
	s.elsewhere().do("snapshot", "save", "x.db", "--endpoints", "127.0.0.1:1", "--command-timeout", "300ms")
	s.do("check", "perf", "--load", "huge")
	s.do("check", "datascale", "--load=")
	s.do("put", "/etcdctl-check-perf/x", "mine")
	s.do("check", "perf")
	s.do("check", "datascale", "--prefix", "/etcdctl-check-perf/")
	s.do("make-mirror")
	s.do("make-mirror", "a", "b")
	s.do("make-mirror", "$EP", "--dest-prefix", "x", "--no-dest-prefix")
	s.do("make-mirror", "$EP", "--dest-cert", "absent.pem")
	s.end(15)
}

// Keys below a prefix appear in another cluster, those that were there and
// those that come, under another prefix, and go when they go.
func TestMirror(t *testing.T) {
	t.Parallel()
	_, tool := tools(t)
	from := harness.Start(t, harness.Subject(t), harness.Options{NoSync: true})
	to := harness.Start(t, harness.Reference(t), harness.Options{NoSync: true})
	ask := func(server *harness.Server, stdin string, args ...string) string {
		t.Helper()
		argv := append(append([]string{}, tool...), "--endpoints="+server.ClientURL)
		cmd := exec.Command(argv[0], append(argv[1:], args...)...)
		cmd.Env, cmd.Stdin = environment(), strings.NewReader(stdin)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%q: %v", args, err)
		}
		return string(out)
	}
	ask(from, "", "put", "a/1", "one")
	ask(from, "", "put", "b/1", "not this")
	argv := append(append([]string{}, tool...), "make-mirror", "--prefix=a/", "--dest-prefix=z/",
		"--endpoints="+from.ClientURL, to.ClientURL)
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	mirror := exec.CommandContext(ctx, argv[0], argv[1:]...)
	mirror.Env = environment()
	mirror.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var errs strings.Builder
	mirror.Stderr = &errs
	if err := mirror.Start(); err != nil {
		t.Fatal(err)
	}
	await := func(want string) {
		t.Helper()
		for ctx.Err() == nil {
			if ask(to, "", "get", "", "--prefix") == want {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		t.Fatalf("the destination has %q, not %q; %s", ask(to, "", "get", "", "--prefix"), want, errs.String())
	}
	await("z/1\none\n")
	ask(from, "\nput a/2 two\nput a/1 'one and more'\nput b/2 no\n\n\n", "txn")
	await("z/1\none and more\nz/2\ntwo\n")
	ask(from, "", "del", "a/1")
	await("z/2\ntwo\n")
	_ = mirror.Process.Signal(syscall.SIGTERM)
	_ = mirror.Wait() // ended by the signal
}
