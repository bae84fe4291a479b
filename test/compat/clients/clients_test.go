// Package clients drives the server under test with programs that others have
// written: Debian's etcdctl 3.4, curl, and the etcd3 package under Node.
package clients

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"milepost.dev/test/compat/harness"
)

// within bounds one run of a client program.
const within = 60 * time.Second

// need finds a program or says how to install it. A missing one fails: a suite
// without its clients shows nothing.
func need(t *testing.T, program, remedy string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("%s is not installed: %s", program, remedy)
	}
	return path
}

func start(t *testing.T) *harness.Server {
	t.Helper()
	return harness.Start(t, harness.Subject(t), harness.Options{NoSync: true})
}

// result is what a program printed and how it ended.
type result struct {
	out, errs string
	code      int
}

func run(t *testing.T, dir, stdin string, env []string, argv ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Stdin = dir, strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if ctx.Err() != nil {
		t.Fatalf("%v did not end within %s", argv, within)
	}
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		t.Fatalf("%v: %v", argv, err)
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// TestNode runs node/check.js with the packages its lock file names.
func TestNode(t *testing.T) {
	node := need(t, "node", "run `apt-get install nodejs`, or install Node 18 or later")
	npm := need(t, "npm", "run `apt-get install npm`, or install Node 18 or later")
	server := start(t)
	// The packages go to the cache, so that the checkout stays clean.
	dir := filepath.Join(harness.CacheDir(), "node")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	changed := false
	for _, name := range []string{"package.json", "package-lock.json", ".npmrc", "check.js"} {
		text, err := os.ReadFile(filepath.Join(harness.Root(t), "node", name))
		if err != nil {
			t.Fatal(err)
		}
		before, _ := os.ReadFile(filepath.Join(dir, name)) // absent at first
		changed = changed || name == "package-lock.json" && !bytes.Equal(before, text)
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "etcd3")); err != nil || changed {
		if r := run(t, dir, "", nil, npm, "ci", "--ignore-scripts"); r.code != 0 {
			t.Fatalf("npm ci: %s%s", r.out, r.errs)
		}
	}
	r := run(t, dir, "", nil, node, "check.js", strings.TrimPrefix(server.ClientURL, "http://"))
	if r.code != 0 || !strings.HasPrefix(r.out, "ok ") {
		t.Fatalf("exit %d\n%s%s", r.code, r.out, r.errs)
	}
	t.Logf("etcd3 for Node: %s", strings.TrimSpace(r.out))
}
