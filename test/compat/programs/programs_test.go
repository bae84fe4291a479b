// Package programs runs the programs that the documents about etcd show: the
// same calls in the same order, written anew against the official client. They
// talk to the server under test alone; what they print and see is the check.
package programs

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"milepost.dev/test/compat/harness"
)

// within bounds every wait; the programs themselves need a few seconds.
const within = 20 * time.Second

// start runs the server under test. The programs mostly wait for leases, so
// that they wait side by side.
func start(t *testing.T) *harness.Server {
	t.Helper()
	t.Parallel()
	return harness.Start(t, harness.Subject(t), harness.Options{NoSync: true})
}

// dial opens an official client as the programs do.
func dial(t *testing.T, server *harness.Server) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{
		Endpoints:   []string{strings.TrimPrefix(server.ClientURL, "http://")},
		DialTimeout: 5 * time.Second,
		Logger:      zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func bounded(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	t.Cleanup(cancel)
	return ctx
}

// transcript collects the lines a program prints, from any goroutine.
type transcript struct {
	mu    sync.Mutex
	lines []string
}

func (p *transcript) printf(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lines = append(p.lines, fmt.Sprintf(format, args...))
}

func (p *transcript) expect(t *testing.T, want ...string) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if got := strings.Join(p.lines, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("printed:\n%s\nwanted:\n%s", got, strings.Join(want, "\n"))
	}
}

func must[R any](t *testing.T) func(R, error) R {
	return func(r R, err error) R {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
}
