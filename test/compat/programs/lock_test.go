package programs

import (
	"fmt"
	"sort"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// TestProgramsMutex is B7: two sessions, one lock, and the order in which they
// hold it. The keys below the lock's name are what others may look at.
func TestProgramsMutex(t *testing.T) {
	client := dial(t, start(t))
	ctx := bounded(t)
	s1 := must[*concurrency.Session](t)(concurrency.NewSession(client))
	defer s1.Close()
	s2 := must[*concurrency.Session](t)(concurrency.NewSession(client))
	defer s2.Close()
	m1, m2 := concurrency.NewMutex(s1, "/my-lock/"), concurrency.NewMutex(s2, "/my-lock/")
	var out transcript
	if err := m1.Lock(ctx); err != nil {
		t.Fatal(err)
	}
	out.printf("acquired lock for s1")
	if want := fmt.Sprintf("/my-lock//%x", s1.Lease()); m1.Key() != want {
		t.Errorf("the lock's key is %q, wanted %q", m1.Key(), want)
	}
	locked := make(chan error)
	go func() { locked <- m2.Lock(ctx) }()
	for { // until the second one stands in the queue
		queue := must[*clientv3.GetResponse](t)(client.Get(ctx, "/my-lock/", clientv3.WithPrefix()))
		if queue.Count == 2 {
			break
		}
	}
	if err := m1.Unlock(ctx); err != nil {
		t.Fatal(err)
	}
	out.printf("released lock for s1")
	if err := <-locked; err != nil {
		t.Fatal(err)
	}
	out.printf("acquired lock for s2")
	out.expect(t, "acquired lock for s1", "released lock for s1", "acquired lock for s2")
	if err := m2.Unlock(ctx); err != nil {
		t.Fatal(err)
	}
}

// TestProgramsCron is B9: several nodes want to run a job on time, one is
// elected and runs it, and when it dies another one takes over.
func TestProgramsCron(t *testing.T) {
	server := start(t)
	ctx := bounded(t)
	type run struct{ node, turn string }
	runs := make(chan run)
	const nodes = 3
	clients := map[string]*clientv3.Client{}
	for n := range nodes {
		name := fmt.Sprintf("node%d", n)
		client := dial(t, server)
		clients[name] = client
		session := must[*concurrency.Session](t)(concurrency.NewSession(client, concurrency.WithTTL(3)))
		go func() {
			election := concurrency.NewElection(session, "/cron/cleanup")
			if err := election.Campaign(ctx, name); err != nil {
				return // this node was stopped before its turn came
			}
			for turn := 0; ; turn++ {
				select {
				case runs <- run{name, fmt.Sprint(turn)}:
				case <-session.Done():
					return
				case <-ctx.Done():
					return
				}
			}
		}()
	}
	var order []string
	for len(order) < nodes {
		leader := (<-runs).node
		for range 3 { // only the leader runs it
			if r := <-runs; r.node != leader {
				t.Fatalf("%s ran the job while %s leads", r.node, leader)
			}
		}
		order = append(order, leader)
		queue := must[*clientv3.GetResponse](t)(clients[leader].Get(ctx, "/cron/cleanup/", clientv3.WithFirstCreate()...))
		if len(queue.Kvs) != 1 || string(queue.Kvs[0].Value) != leader {
			t.Fatalf("the job is run by %s, but the oldest key says %v", leader, queue.Kvs)
		}
		clients[leader].Close() // dies without resigning; its lease runs out
		if len(order) == nodes {
			break
		}
		for next := leader; next == leader; { // a last run may be under way
			select {
			case r := <-runs:
				next = r.node
			case <-ctx.Done():
				t.Fatalf("nobody took over from %s", leader)
			}
		}
	}
	sort.Strings(order)
	if got := strings.Join(order, " "); got != "node0 node1 node2" {
		t.Errorf("these led, each once: %s", got)
	}
}

// TestProgramsSessionLost: a lock whose session has run out is free again.
func TestProgramsSessionLost(t *testing.T) {
	server := start(t)
	ctx := bounded(t)
	holder, waiter := dial(t, server), dial(t, server)
	s1 := must[*concurrency.Session](t)(concurrency.NewSession(holder, concurrency.WithTTL(2)))
	if err := concurrency.NewMutex(s1, "/job").Lock(ctx); err != nil {
		t.Fatal(err)
	}
	s2 := must[*concurrency.Session](t)(concurrency.NewSession(waiter))
	defer s2.Close()
	second := concurrency.NewMutex(s2, "/job")
	if err := second.TryLock(ctx); err != concurrency.ErrLocked {
		t.Fatalf("trying a held lock: %v, wanted %v", err, concurrency.ErrLocked)
	}
	holder.Close()
	if err := second.Lock(ctx); err != nil {
		t.Fatal(err)
	}
}
