package cluster

import (
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"milepost.dev/test/compat/harness"
)

// setTo is a fault that never ends: the leader's wall clock, or a follower's, is
// wrong from now on.
func setTo(clocks map[*Member]*WallClock, wrongBy time.Duration) func(*Cluster, *Member) (func() error, error) {
	return func(_ *Cluster, m *Member) (func() error, error) {
		return func() error { return nil }, clocks[m].Set(wrongBy)
	}
}

// TestClocksJump: members' wall clocks are set, forth and back by up to years,
// the leader's as well, and restarts come with wrong ones. Nothing in the history
// of the clients shows it; a lease ends neither early nor never.
func TestClocksJump(t *testing.T) {
	parallel(t)
	harness.NeedOwnSubject(t) // the clocks of programs in Go cannot be set in this way
	ctx := deadline(t, 4*time.Minute)
	c := prepare(t, of(t, 3))
	clocks := map[*Member]*WallClock{}
	for _, m := range c.Members() {
		clock, err := m.WallClock()
		must(t, err)
		clocks[m] = clock
	}
	must(t, c.Start(ctx))
	const day = 24 * time.Hour
	faults := []Fault{
		onLeader("clock an hour ahead", setTo(clocks, time.Hour)),
		onLeader("clock a day back", setTo(clocks, -day)),
		onLeader("clock ten years ahead", setTo(clocks, 3650*day)),
		onFollower("clock a year back", setTo(clocks, -365*day)),
		onFollower("clock a minute ahead", setTo(clocks, time.Minute)),
		onFollower("clock ten years ahead", setTo(clocks, 3650*day)),
		onLeader("killed", kill),
		onFollower("killed", kill),
	}
	counts := newTally(t, append(kindsOf(faults), "log lines with a wrong time", "leases ended after a jump", "leases kept over a jump")...)
	e := begin(t, c, counts, 6, nil)
	e.suffer(ctx, faults, holdFault)
	e.settle(ctx)

	client, err := c.Client()
	must(t, err)
	defer client.Close()
	for round, wrongBy := range []time.Duration{time.Hour, -time.Hour, 365 * day, -365 * day} {
		kept, err := client.Grant(ctx, 60)
		must(t, err)
		short, err := client.Grant(ctx, 3)
		must(t, err)
		granted := time.Now()
		names := map[clientv3.LeaseID]string{}
		for _, lease := range []clientv3.LeaseID{kept.ID, short.ID} {
			names[lease] = fmt.Sprintf("clock/%d/%d", round, lease)
			_, err = client.Put(ctx, names[lease], "held", clientv3.WithLease(lease))
			must(t, err)
		}
		for _, clock := range clocks {
			must(t, clock.Set(wrongBy))
		}
		if gone := awaitGone(ctx, t, client, names[short.ID]); gone.Sub(granted) < 3*time.Second {
			t.Errorf("clocks set by %s: a lease of 3 s ended after %s", wrongBy, gone.Sub(granted))
		}
		counts.add("leases ended after a jump", 1)
		left, err := client.TimeToLive(ctx, kept.ID)
		must(t, err)
		if left.TTL <= 0 || left.TTL > 60 {
			t.Errorf("clocks set by %s: of a lease of 60 s %d s are left", wrongBy, left.TTL)
		}
		counts.add("leases kept over a jump", 1)
		// The jump did take place: the next line of a log shows it.
		m := c.Members()[round%3]
		_, err = m.Terminate(30 * time.Second)
		must(t, err)
		told, err := clocks[m].Told()
		must(t, err)
		if off := told - wrongBy; off.Abs() > 10*time.Minute {
			t.Fatalf("the clock of %s was set by %s, and its log says %s: is the server linked statically?", m, wrongBy, told)
		}
		counts.add("log lines with a wrong time", 1)
		must(t, m.Start())
		must(t, c.WaitReady(ctx))
	}
	_, err = c.SameHashes(ctx)
	must(t, err)
}
