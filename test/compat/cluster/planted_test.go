package cluster

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"milepost.dev/test/compat/harness"
)

// quiet records a short history of three etcds in peace, and its story.
func quiet(t *testing.T) ([]Change, []*Op) {
	t.Helper()
	etcd := harness.Reference(t)
	c := started(t, []harness.Binary{etcd, etcd, etcd}, "--unsafe-no-fsync=true")
	ctx := deadline(t, time.Minute)
	e := begin(t, c, newTally(t), 6, nil)
	harness.Eventually(t, 30*time.Second, func() error {
		if n := e.recorder.Acknowledged(); n < 300 {
			return context.DeadlineExceeded
		}
		return nil
	})
	for _, w := range e.watches {
		w.Close()
	}
	ops, _ := e.recorder.Stop()
	until, err := c.SameHashes(ctx)
	must(t, err)
	story, err := Story(ctx, c.Members()[0], until)
	must(t, err)
	return story, ops
}

// TestCheckersSeePlantedFaults: what the checkers are there to find is put into
// a sound history, and each of them finds what is in its sight.
func TestCheckersSeePlantedFaults(t *testing.T) {
	parallel(t)
	story, ops := quiet(t)
	if faults := CheckStory(story, ops); len(faults) > 0 {
		t.Fatalf("a sound history has faults: %v", faults)
	}
	if _, err := CheckOrder(ops, time.Minute); err != nil {
		t.Fatalf("a sound history has no order: %v", err)
	}
	counts := newTally(t, "planted", "found by revisions", "found by search")
	// clone copies the operations, so that each fault has its own.
	clone := func() []*Op {
		var out []*Op
		for _, op := range ops {
			other := *op
			other.Keys = slices.Clone(op.Keys)
			out = append(out, &other)
		}
		return out
	}
	// staleRead is a read made to see the value that a write before it, which
	// had returned before the read began, had replaced.
	staleRead := func(ops []*Op) {
		for i := len(ops) - 1; i >= 0; i-- {
			read := ops[i]
			if read.Kind != Read || read.Found == "" {
				continue
			}
			var older Change
			for _, c := range story {
				if c.Key == read.Keys[0] && c.Revision < read.Mod {
					older = c
				}
			}
			for _, w := range ops {
				if w.effective() && w.Revision == read.Mod && w.Return < read.Call && older.Value != "" {
					read.Found, read.Mod, read.Revision = older.Value, older.Revision, older.Revision
					return
				}
			}
		}
		t.Fatal("no read to spoil")
	}
	seen := 0
	for _, plant := range []struct {
		name               string
		spoil              func([]Change, []*Op) ([]Change, []*Op)
		revisions, ordered bool // who must see it
	}{
		{"a stale read", func(s []Change, o []*Op) ([]Change, []*Op) { staleRead(o); return s, o }, true, true},
		{"an acknowledged write that nobody has", func(s []Change, o []*Op) ([]Change, []*Op) {
			for _, op := range o {
				if op.Kind == Put && len(op.Keys) == 1 {
					return slices.DeleteFunc(slices.Clone(s), func(c Change) bool { return c.Revision == op.Revision }), o
				}
			}
			return s, o
		}, true, false},
		{"a lost update: a swap that found another value", func(s []Change, o []*Op) ([]Change, []*Op) {
			for _, op := range o {
				if op.Kind == Swap && !op.Done {
					op.Done, op.Expect, op.Found, op.Mod = true, "never written", "", 0
					return s, o
				}
			}
			return s, o
		}, true, true},
		{"a write twice", func(s []Change, o []*Op) ([]Change, []*Op) {
			for _, op := range o {
				if op.Kind == Put {
					op.Known = false
					again := Change{s[len(s)-1].Revision + 1, op.Keys[0], op.Value}
					return append(slices.Clone(s), again), o
				}
			}
			return s, o
		}, true, false},
		{"a read of what nobody wrote", func(s []Change, o []*Op) ([]Change, []*Op) {
			for _, op := range o {
				if op.Kind == Read {
					op.Found = "never written"
					return s, o
				}
			}
			return s, o
		}, true, true},
	} {
		counts.add("planted", 1)
		badStory, badOps := plant.spoil(story, clone())
		faults := CheckStory(badStory, badOps)
		_, err := CheckOrder(badOps, time.Minute)
		if found := len(faults) > 0; found != plant.revisions {
			t.Errorf("%s: found by its revisions: %v", plant.name, found)
		} else if found {
			counts.add("found by revisions", 1)
			t.Logf("%s: %.250s", plant.name, faults[0])
		}
		// The search knows no revisions: whether another order explains what was planted
		// hangs on what else was under way, so it need not see each, but two of them.
		if found := err != nil; found && !plant.ordered {
			t.Errorf("%s: found by the search for an order: %v", plant.name, err)
		} else if found {
			counts.add("found by search", 1)
			seen++
		}
	}
	if seen < 2 {
		t.Errorf("the search for an order has seen %d of what was planted", seen)
	}
}

// honest is a value that falsify changes into another of the same length.
const honest = "honest value"

// falsify lets victim hear of another value wherever honest is on its way to it.
func falsify(c *Cluster, victim *Member) {
	from, to := []byte(honest), []byte("forged value")
	c.Net.Mangle(func(way Pair, data []byte) int {
		if way.To != victim.Number {
			return 0
		}
		n := bytes.Count(data, from)
		copy(data, bytes.ReplaceAll(data, from, to))
		return n
	})
}

// TestFalsifiedNetworkIsSeen: a network that changes values on their way to one
// of three real etcds makes that member different, which HashKV and the story of
// that member show. So a difference in our tests would not go unseen.
func TestFalsifiedNetworkIsSeen(t *testing.T) {
	parallel(t)
	etcd := harness.Reference(t)
	c := started(t, []harness.Binary{etcd, etcd, etcd}, "--unsafe-no-fsync=true")
	ctx := deadline(t, time.Minute)
	leader, err := c.Leader(ctx)
	must(t, err)
	victim := another(c, leader)
	falsify(c, victim)
	client, err := leader.Client()
	must(t, err)
	defer client.Close()
	for range 20 {
		if _, err := client.Put(ctx, Prefix+"honest", honest); err != nil {
			t.Fatal(err)
		}
	}
	if c.Net.Tally.Mangled.Load() == 0 {
		t.Fatal("nothing was falsified")
	}
	if _, err := c.SameHashes(ctx); err == nil {
		t.Error("the members' hashes are equal all the same")
	} else if !strings.Contains(err.Error(), victim.Name) && !strings.Contains(err.Error(), leader.Name) {
		t.Errorf("an unexpected complaint: %v", err)
	} else {
		t.Logf("%d values falsified; %v", c.Net.Tally.Mangled.Load(), err)
	}
}
