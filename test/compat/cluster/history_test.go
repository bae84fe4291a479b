package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"milepost.dev/test/compat/harness"
)

// episode is a recorded history under way.
type episode struct {
	t        *testing.T
	c        *Cluster
	counts   *tally
	random   *rand.Rand
	recorder *Recorder
	watches  []*Watching
	// recovered is the longest wait for service after each kind of fault.
	recovered map[string]time.Duration
	term      uint64 // at the beginning
}

// begin starts clients and watchers on a running cluster.
func begin(t *testing.T, c *Cluster, counts *tally, clients int, pick func(*rand.Rand) *Member) *episode {
	t.Helper()
	seed := uint64(harness.IntEnv(t, "COMPAT_SEED", int(time.Now().UnixNano())))
	t.Logf("seed %d", seed)
	e := &episode{t: t, c: c, counts: counts, random: rand.New(rand.NewPCG(seed, 1)), recovered: map[string]time.Duration{}}
	if pick == nil {
		pick = func(random *rand.Rand) *Member {
			all := c.Members()
			return all[random.IntN(len(all))]
		}
	}
	e.term = e.newestTerm()
	follow := func(name string, needsLeader bool, members ...*Member) {
		w, err := Follow(name, needsLeader, members...)
		must(t, err)
		e.watches = append(e.watches, w)
	}
	for _, m := range c.Members() {
		follow("the watch at "+m.Name, m.Number%2 == 0, m)
	}
	follow("the watch at all", false, c.Members()...)
	follow("the watch at all that needs a leader", true, c.Members()...)
	e.recorder = c.Record(clients, seed, pick)
	return e
}

// newestTerm is the highest term that a member knows.
func (e *episode) newestTerm() uint64 {
	e.t.Helper()
	term := uint64(0)
	for _, m := range e.c.Running() {
		status, err := m.Status(context.Background())
		must(e.t, err)
		term = max(term, status.RaftTerm)
	}
	return term
}

// suffer lets each fault happen once, in a random order, for about so long.
func (e *episode) suffer(ctx context.Context, faults []Fault, hold time.Duration) {
	e.t.Helper()
	for _, i := range e.random.Perm(len(faults)) {
		e.one(ctx, faults[i], hold/2+time.Duration(e.random.Int64N(int64(hold))))
	}
}

func (e *episode) one(ctx context.Context, f Fault, hold time.Duration) {
	e.t.Helper()
	end, err := f.Begin(ctx, e.c, e.random)
	if err != nil {
		e.t.Fatalf("%s: %v", f.Name, err)
	}
	<-time.After(hold)
	if err := end(); err != nil {
		e.t.Fatalf("the end of %q: %v", f.Name, err)
	}
	e.counts.add("fault: "+f.Name, 1)
	bounded, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	took, err := e.c.AwaitService(bounded, Prefix)
	if err != nil {
		e.t.Fatalf("after %q: %v", f.Name, err)
	}
	e.recovered[f.Name] = max(e.recovered[f.Name], took)
}

// enough waits until clients have done at least once all that they do to a
// cluster that serves: faults may leave them too little time for it.
func (e *episode) enough() {
	e.t.Helper()
	harness.Eventually(e.t, time.Minute, func() error {
		events := e.recorder.Events()
		for _, kind := range kindsOfOperations {
			if events[kind] == 0 {
				return fmt.Errorf("%q has not happened", kind)
			}
		}
		return nil
	})
}

// settle ends the clients and checks everything.
func (e *episode) settle(ctx context.Context) {
	t, c := e.t, e.c
	t.Helper()
	must(t, c.WaitReady(ctx))
	e.enough()
	ops, errors := e.recorder.Stop()
	e.counts.add("terms", int(e.newestTerm()-e.term))
	until, err := c.SameHashes(ctx)
	must(t, err)
	e.counts.add("equal hashes", len(c.Running()))

	var story []Change
	for _, m := range c.Running() {
		its, err := Story(ctx, m, until)
		must(t, err)
		if story != nil && !slices.Equal(story, its) {
			t.Errorf("%s tells another story than %s", m, c.Running()[0])
		}
		story = its
	}
	if len(story) == 0 || story[0].Revision != 2 {
		t.Fatalf("the story of %d changes does not begin at revision 2", len(story))
	}
	for _, fault := range CheckStory(story, ops) {
		t.Error(fault)
	}
	began := time.Now()
	keys, err := CheckOrder(ops, time.Minute)
	if err != nil {
		t.Error(err)
	}
	t.Logf("an order for %d operations on %d keys was found in %s", len(ops), keys, time.Since(began).Round(time.Millisecond))
	for _, w := range e.watches {
		if err := w.Await(ctx, story); err != nil {
			t.Error(err)
		}
		e.counts.add("watch resumed", w.Resumes())
		e.counts.add("watch without gap", 1)
		w.Close()
	}
	e.count(ops, errors)
	t.Logf("network: %s", &c.Net.Tally)
	for name, took := range e.recovered {
		t.Logf("served %8s after the end of: %s", took.Round(time.Millisecond), name)
	}
}

func (e *episode) count(ops []*Op, errors map[string]int) {
	for _, op := range ops {
		e.counts.add(op.event(), 1)
	}
	for text, n := range errors {
		e.counts.add("error: "+text, n)
	}
}

// kindsOfOperations do not need a fault.
var kindsOfOperations = []string{
	"client: put", "client: swap", "client: swap refused", "client: delete", "client: nothing to delete",
	"client: read", "client: local",
}

// kindsOfClients must all occur in a history.
var kindsOfClients = append(slices.Clone(kindsOfOperations),
	"client: write of unknown outcome", "watch resumed", "watch without gap", "equal hashes", "terms")

func kindsOf(faults []Fault) []string {
	kinds := slices.Clone(kindsOfClients)
	for _, f := range faults {
		kinds = append(kinds, "fault: "+f.Name)
	}
	return kinds
}

// rounds is how often all faults happen: once, or as often as the slow suite
// wants.
func rounds(t testing.TB) int { return max(1, 8*harness.IntEnv(t, "CLUSTER_SLOW", 0)) }

const holdFault = 900 * time.Millisecond

// TestHistoryOfThree: no acknowledged write is lost, no read is stale, watchers
// miss nothing and the members stay equal, whatever happens to one member or
// to the network.
func TestHistoryOfThree(t *testing.T) {
	parallel(t)
	history(t, of(t, 3), Faults(), rounds(t))
}

// TestHistoryOfMore is the same with what takes two members at once, with five
// members (slow: and seven).
func TestHistoryOfMore(t *testing.T) {
	parallel(t)
	faults, sizes := FaultsOfFive(), []int{5}
	if harness.IntEnv(t, "CLUSTER_SLOW", 0) > 0 {
		faults, sizes = append(faults, Faults()...), append(sizes, 7)
	}
	for _, size := range sizes {
		t.Run(fmt.Sprint(size), func(t *testing.T) { history(t, of(t, size), faults, rounds(t)) })
	}
}

// TestHistoryOfBothKinds: two etcds and one of ours.
func TestHistoryOfBothKinds(t *testing.T) {
	parallel(t)
	etcd := harness.Reference(t)
	faults := Faults()
	if harness.IntEnv(t, "CLUSTER_SLOW", 0) == 0 {
		faults = slices.DeleteFunc(faults, func(f Fault) bool {
			return !strings.HasPrefix(f.Name, "leader") && f.Name != "connections reset"
		})
	}
	history(t, []harness.Binary{etcd, etcd, harness.Subject(t)}, faults, rounds(t))
}

func history(t *testing.T, bins []harness.Binary, faults []Fault, rounds int, args ...string) *Cluster {
	t.Helper()
	ctx := deadline(t, time.Duration(2+2*rounds)*time.Minute)
	counts := newTally(t, kindsOf(faults)...)
	c := started(t, bins, args...)
	e := begin(t, c, counts, 9, nil)
	for range rounds {
		e.suffer(ctx, faults, holdFault)
	}
	e.settle(ctx)
	return c
}
