package cluster

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"milepost.dev/test/compat/harness"
)

// ticks are the clusters' clocks: half of etcd's defaults, so that elections
// take less of the test's time.
var ticks = []string{"--heartbeat-interval=50", "--election-timeout=500"}

// slots bounds how many tests run at once: they mostly wait, but a machine that
// is too busy holds elections for no other reason.
var slots = make(chan struct{}, 3)

// parallel lets a test run beside others, once there is room for it. It comes
// before anything that limits the test's time.
func parallel(t *testing.T) {
	t.Helper()
	t.Parallel()
	slots <- struct{}{}
	t.Cleanup(func() { <-slots })
}

// deadline is the context of a test that ought to take a small part of it.
func deadline(t testing.TB, within time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), within)
	t.Cleanup(cancel)
	return ctx
}

// prepare makes a cluster that ends with the test.
func prepare(t testing.TB, bins []harness.Binary, args ...string) *Cluster {
	t.Helper()
	c, err := New(t.TempDir(), bins, append(append([]string(nil), ticks...), args...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		if t.Failed() {
			for _, m := range c.Members() {
				t.Logf("complaints of %s:\n%slast lines of its log:\n%s", m, m.Complaints(), m.LogTail(8))
			}
		}
	})
	return c
}

// started is prepare with all members up.
func started(t testing.TB, bins []harness.Binary, args ...string) *Cluster {
	t.Helper()
	c := prepare(t, bins, args...)
	must(t, c.Start(deadline(t, time.Minute)))
	return c
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// of makes n times the server under test.
func of(t testing.TB, n int) []harness.Binary {
	t.Helper()
	var out []harness.Binary
	for range n {
		out = append(out, harness.Subject(t))
	}
	return out
}

// tally counts kinds of events of one test; one that never happened fails it.
type tally struct {
	mu    sync.Mutex
	kinds map[string]int
	// These may fail to happen by chance, and are shown by other tests.
	mayMiss []string
}

func newTally(t testing.TB, kinds ...string) *tally {
	y := &tally{kinds: map[string]int{}}
	for _, k := range kinds {
		y.kinds[k] = 0
	}
	t.Cleanup(func() {
		var lines []string
		for kind, n := range y.kinds {
			lines = append(lines, fmt.Sprintf("%8d %s", n, kind))
			if n == 0 && !slices.Contains(y.mayMiss, kind) && !t.Failed() {
				t.Errorf("%q never happened: this run shows nothing about it", kind)
			}
		}
		sort.Slice(lines, func(i, j int) bool { return lines[i][9:] < lines[j][9:] })
		t.Logf("how often each happened:\n%s", strings.Join(lines, "\n"))
	})
	return y
}

func (y *tally) add(kind string, n int) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.kinds[kind] += n
}

func scratch(t testing.TB, name string) string { return filepath.Join(t.TempDir(), name) }
