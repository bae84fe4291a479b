package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"milepost.dev/test/compat/harness"
)

// TestHistoryOfChangingMembers: learners are added, promoted, and others
// removed, the leader among them, while members are killed, paused and cut off.
func TestHistoryOfChangingMembers(t *testing.T) {
	parallel(t)
	faults := slices.DeleteFunc(Faults(), func(f Fault) bool {
		switch f.Name {
		case "leader killed", "follower killed", "leader isolated", "follower mute", "leader paused", "connections reset":
			return false
		}
		return true
	})
	n := rounds(t)
	ctx := deadline(t, time.Duration(2+2*n)*time.Minute)
	counts := newTally(t, append(kindsOf(faults), "member: learner added", "member: promoted", "member: removed",
		"member: ended by itself after its removal")...)
	// Those that are killed and come back may all be members that nobody watches; other histories show it.
	counts.mayMiss = []string{"watch resumed"}
	// Etcd's check would refuse nearly every change in such times.
	c := started(t, of(t, 3), "--strict-reconfig-check=false")
	seed := uint64(harness.IntEnv(t, "COMPAT_SEED", int(time.Now().UnixNano())))
	changes := c.Reconfigure(harness.Subject(t), seed, func(kind string) { counts.add(kind, 1) }, t.Logf)
	e := begin(t, c, counts, 9, func(random *rand.Rand) *Member { return changes.pick(random) })
	// The watches of single members end with their members; those of all
	// members follow the endpoints that are left.
	for range n {
		e.suffer(ctx, faults, 2*holdFault)
	}
	removed, err := changes.Stop()
	must(t, err)
	for _, m := range removed {
		if how, err := m.End(20 * time.Second); err == nil && how == "signal killed" {
			// A fault was quicker: started again it must see that it is no member, and
			// end. It hears of that from those it knows, if they are still there.
			if !slices.ContainsFunc(m.Left, func(other *Member) bool { return slices.Contains(changes.Voters(), other) }) {
				t.Logf("%s, removed, was killed before it heard of that, and knows nobody who could tell", m)
				continue
			}
			must(t, m.Start())
		}
		how, err := m.End(20 * time.Second)
		if err != nil {
			// One that was cut off when it was removed may know none of today's members.
			if known, others, unknown := knows(ctx, m.Member, changes.Voters()); known != "" || unknown != nil {
				t.Errorf("removed, and %v, and knows %q (%v); last lines of its log:\n%s", err, known, unknown, m.LogTail(6))
			} else {
				t.Logf("%s, removed, was cut off and knows only %v, who are gone as well", m, others)
			}
			m.Kill()
			continue
		}
		t.Logf("%s, removed, ended with %s", m, how)
		counts.add("member: ended by itself after its removal", 1)
	}
	e.only(changes.Voters())
	e.settle(ctx)
}

// knows says which of voters is among the members that m knows, if one is, and
// the peer URLs of those that it knows beside itself. It is asked at its peers'
// door: one that was started again and finds no leader serves no clients.
func knows(ctx context.Context, m *Member, voters []*Member) (known string, others []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, list, err := listByPeerPort(ctx, m)
	if err != nil {
		return "", nil, err
	}
	for _, other := range list {
		if slices.Contains(other.PeerURLs, m.PeerURL) {
			continue
		}
		others = append(others, other.PeerURLs...)
		for _, voter := range voters {
			if slices.Contains(other.PeerURLs, voter.PeerURL) {
				known = voter.String()
			}
		}
	}
	return known, others, nil
}

// only forgets the watches of members that are gone.
func (e *episode) only(members []*Member) {
	e.watches = slices.DeleteFunc(e.watches, func(w *Watching) bool {
		for _, m := range e.c.Members() {
			if w.Name == "the watch at "+m.Name && !slices.Contains(members, m) {
				w.Close()
				return true
			}
		}
		return false
	})
	for _, w := range e.watches {
		w.Follow(members)
	}
}

// TestRemovedAndBack: a removed member ends by itself with exit code 0, does
// not come back with its old data, and comes back empty as a new member.
func TestRemovedAndBack(t *testing.T) {
	parallel(t)
	ctx := deadline(t, 2*time.Minute)
	c := started(t, of(t, 3))
	counts := newTally(t, "removed", "refused to come back")
	for _, victim := range []*Member{c.Members()[2], nil} {
		leader, err := c.Leader(ctx)
		must(t, err)
		if victim == nil {
			victim = leader
		}
		client, err := newClient(endpoints(slices.DeleteFunc(c.Running(), func(m *Member) bool { return m == victim })))
		must(t, err)
		defer client.Close()
		id := memberID(ctx, t, client, victim)
		change(ctx, t, client, func(ctx context.Context) error {
			_, err := client.MemberRemove(ctx, id)
			return err
		}, func(list []*pb.Member) bool { return find(list, victim) == nil })
		how, err := victim.End(20 * time.Second)
		// Etcd's listener may complain first, by accident, that the server stops.
		if err != nil || (how != "exit 0" && !harness.SubjectIsReference(t)) {
			t.Errorf("removed, %s ended with %q, %v", victim, how, err)
		}
		counts.add("removed", 1)
		must(t, victim.Start())
		how, err = victim.End(20 * time.Second)
		if err != nil || how == "exit 2" {
			t.Errorf("with its old data %s ended with %q, %v; last lines of its log:\n%s", victim, how, err, victim.LogTail(4))
		}
		t.Logf("with its old data it ended with %s: %s", how, victim.LogTail(1))
		counts.add("refused to come back", 1)
		victim.Kill()
		must(t, victim.Wipe())
		change(ctx, t, client, func(ctx context.Context) error {
			_, err := client.MemberAddAsLearner(ctx, []string{victim.PeerURL})
			return err
		}, func(list []*pb.Member) bool { return find(list, victim) != nil })
		c.Join(victim, slices.DeleteFunc(c.Running(), func(m *Member) bool { return m == victim })...)
		must(t, victim.Start())
		promote(ctx, t, c, victim)
		must(t, c.WaitReady(ctx))
		writeThroughEach(ctx, t, c, fmt.Sprint("after ", id))
		_, err = c.SameHashes(ctx)
		must(t, err)
	}
}

// change asks for a change of members until it took place. Etcd waits as long
// as the client for a change that got lost, and refuses while it has not known
// its members for a few seconds.
func change(ctx context.Context, t *testing.T, client *clientv3.Client, ask func(context.Context) error, done func([]*pb.Member) bool) {
	t.Helper()
	harness.Eventually(t, 30*time.Second, func() error {
		short, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		err := ask(short)
		if err == nil {
			return nil
		}
		list, listErr := client.MemberList(ctx)
		if listErr == nil && done(list.Members) {
			return nil
		}
		return err
	})
}

// TestJoinerKilled: a member that joins is killed again and again, as early as
// before it has heard anything, and joins all the same.
func TestJoinerKilled(t *testing.T) {
	parallel(t)
	ctx := deadline(t, 2*time.Minute)
	c := started(t, of(t, 3), lowSnapshots...)
	counts := newTally(t, "killed while joining")
	x := newMix(t, c, newTally(t))
	x.write(ctx, beyondLog)
	random := rand.New(rand.NewPCG(x.seed, 3))
	m := join(ctx, t, c, harness.Subject(t), true)
	for i := range 12 {
		<-time.After(time.Duration(random.IntN(10+30*i)) * time.Millisecond)
		m.Kill()
		counts.add("killed while joining", 1)
		must(t, m.Start())
	}
	must(t, m.WaitReady(ctx))
	promote(ctx, t, c, m)
	x.write(ctx, 100)
	lead(ctx, t, c, m)
	x.write(ctx, 100)
}

// TestOldCopy: a member whose directory was put back to an old copy has
// forgotten what it had acknowledged. It ends, and says what to do; the others go
// on. (Etcd does not notice.)
func TestOldCopy(t *testing.T) {
	parallel(t)
	harness.NeedOwnSubject(t)
	ctx := deadline(t, 2*time.Minute)
	c := started(t, of(t, 3))
	leader, err := c.Leader(ctx)
	must(t, err)
	victim := another(c, leader)
	client, err := leader.Client()
	must(t, err)
	defer client.Close()
	fill := func(from, to int) {
		for i := from; i < to; i++ {
			_, err := client.Put(ctx, fmt.Sprintf("copy/%d", i), "x")
			must(t, err)
		}
	}
	fill(0, 20)
	victim.Kill()
	old := scratch(t, "old")
	must(t, os.CopyFS(old, os.DirFS(victim.Dir)))
	must(t, victim.Start())
	must(t, c.WaitReady(ctx))
	fill(20, 220)
	_, err = c.SameHashes(ctx)
	must(t, err)
	victim.Kill()
	must(t, victim.Wipe())
	must(t, os.CopyFS(victim.Dir, os.DirFS(old)))
	must(t, os.Chmod(victim.Dir, 0o700))
	before := len(victim.Log())
	must(t, victim.Start())
	how, err := victim.End(30 * time.Second)
	if err != nil || how == "exit 0" {
		t.Fatalf("with an old copy of its directory: %s, %v", how, err)
	}
	said := victim.Log()[before:]
	if !regexp.MustCompile(`(?i)remove`).MatchString(said) || !regexp.MustCompile(`(?i)add`).MatchString(said) {
		t.Errorf("it does not name the remedy (remove, wipe, add again): %s", victim.LogTail(3))
	}
	t.Logf("it ended with %s: %s", how, victim.LogTail(1))
	fill(220, 240)
}
