// Package ctl compares our etcdctl with etcd's own, command line by command
// line: standard output, standard error, exit code.
//
// Four pairs of tool and server run every line, each on a server of its own,
// so that all servers have lived through the same:
//
//	etcd's tool ─► etcd      what has to come out
//	our tool    ─► etcd      must be equal: the tool is right
//	our tool    ─► ours      must be equal: both together are right
//	etcd's tool ─► ours      must be equal: the server is right
//
// What is masked stands in normal.go. Nothing else is.
package ctl

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"milepost.dev/test/compat/harness"
)

// within bounds one command line.
const within = 30 * time.Second

// pair is a tool with a server of its own.
type pair struct {
	name   string
	tool   []string
	server *harness.Server
	// leases are the ids that its server has granted, in order.
	leases []int64
	// members are the ids of members that were added; they come from the clock.
	members []uint64
	dir     string
}

// result is what one command line came to.
type result struct {
	out, errs string
	code      int
}

// tools returns the argument vectors of etcd's tool and of ours.
func tools(t *testing.T) (reference, subject []string) {
	reference = []string{harness.BuildTool(t, "refctl")}
	if harness.SubjectIsReference(t) {
		return reference, reference
	}
	// A tool that was built alone, while it is being worked on.
	if path := os.Getenv("MILEPOST_CTL"); path != "" {
		return reference, []string{path}
	}
	return reference, []string{harness.Subject(t).Path, "etcdctl"}
}

// newPairs starts a server for each pair. All advertise one peer URL, from
// which their ids come, so that ids need no mask.
func newPairs(t *testing.T, args ...string) []*pair {
	t.Helper()
	reference, subject := tools(t)
	pairs := []*pair{
		{name: "etcd's tool, etcd", tool: reference},
		{name: "our tool, etcd", tool: subject},
		{name: "our tool, our server", tool: subject},
		{name: "etcd's tool, our server", tool: reference},
	}
	var wg sync.WaitGroup
	for i, p := range pairs {
		bin := harness.Reference(t)
		if i >= 2 {
			bin = harness.Subject(t)
		}
		p.dir = t.TempDir()
		p.server = harness.Prepare(t, bin, harness.Options{
			NoSync: true, Args: args, AdvertisePeerURL: "http://127.0.0.1:2380",
		})
		wg.Go(func() {
			if err := p.server.Run(); err != nil {
				t.Errorf("%s: %v", p.name, err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return pairs
}

// endpoint is the server's address as people type it.
func (p *pair) endpoint() string { return strings.TrimPrefix(p.server.ClientURL, "http://") }

// expand fills in what differs from pair to pair.
func (p *pair) expand(text string) string {
	text = strings.ReplaceAll(text, "$EP", p.endpoint())
	for i := len(p.leases) - 1; i >= 0; i-- {
		text = strings.ReplaceAll(text, fmt.Sprintf("$LEASE%d", i+1), fmt.Sprintf("%016x", p.leases[i]))
	}
	for i, id := range p.members {
		text = strings.ReplaceAll(text, fmt.Sprintf("$MEMBER%d", i+1), fmt.Sprintf("%x", id))
	}
	return text
}

// run runs one line. Unless it names endpoints itself, it is asked of the
// pair's server.
func (p *pair) run(s step) (result, error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	argv := append([]string{}, p.tool...)
	for _, arg := range s.args {
		argv = append(argv, p.expand(arg))
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = p.dir
	cmd.Stdin = strings.NewReader(p.expand(s.in))
	cmd.Env = environment()
	if !s.elsewhere {
		cmd.Env = append(cmd.Env, "ETCDCTL_ENDPOINTS="+p.endpoint())
	}
	for _, variable := range s.env {
		cmd.Env = append(cmd.Env, p.expand(variable))
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if ctx.Err() != nil {
		return result{}, fmt.Errorf("it did not end within %s", within)
	}
	if _, exited := err.(*exec.ExitError); err != nil && !exited {
		return result{}, err
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}, nil
}

// environment is ours without what configures the tools.
func environment() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "ETCDCTL_") {
			env = append(env, v)
		}
	}
	return env
}

// file puts a file into every pair's working directory.
func file(t *testing.T, pairs []*pair, name, text string) {
	t.Helper()
	for _, p := range pairs {
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
