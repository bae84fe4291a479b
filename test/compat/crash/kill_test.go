// Package crash kills the server under test with kill -9 at random moments,
// starts it again, and compares what is there with what had been acknowledged.
package crash

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"milepost.dev/test/compat/harness"
)

const writers = 4

// TestKill runs KILL_ROUNDS rounds (10 by default; the slow suite takes 200).
//
// Each round: writers write until the process is killed in the middle of it,
// sometimes it is killed once more while it starts, then it is started, and
// the ledger is held against it.
func TestKill(t *testing.T) {
	rounds := harness.IntEnv(t, "KILL_ROUNDS", 10)
	seed := uint64(harness.IntEnv(t, "COMPAT_SEED", int(time.Now().UnixNano())))
	t.Logf("seed %d, %d rounds", seed, rounds)
	random := rand.New(rand.NewPCG(seed, 9))
	// Snapshots and the trimming of the log fall into the rounds as well.
	server := harness.Start(t, harness.Subject(t), harness.Options{Args: []string{"--snapshot-count=150"}})
	book := newLedger()
	holdLease(t, server, book)
	for round := range rounds {
		writeUntilKilled(t, server, book, random)
		if random.IntN(3) == 0 { // killed while it recovers
			if err := server.Spawn(); err != nil {
				t.Fatal(err)
			}
			<-time.After(time.Duration(random.IntN(60)) * time.Millisecond)
			server.Kill()
		}
		if err := server.Run(); err != nil {
			t.Fatalf("round %d: not up again after kill -9: %v", round, err)
		}
		book.check(t, server)
		if t.Failed() {
			t.Fatalf("stopped after round %d", round)
		}
	}
	book.checkFromTheStart(t, server)
	awaitExpiry(t, server, book)
	t.Logf("%d acknowledged writes, %d of unknown outcome of which %d are there; revision %d",
		len(book.acknowledged), book.unknown, book.unknownThere, book.revision)
	if len(book.acknowledged) < 20*rounds {
		t.Errorf("only %d writes in %d rounds: this shows nothing", len(book.acknowledged), rounds)
	}
}

// writeUntilKilled lets the writers write and kills the server at a random
// moment. Each writer stops at its first failure.
func writeUntilKilled(t *testing.T, server *harness.Server, book *ledger, random *rand.Rand) {
	t.Helper()
	var done sync.WaitGroup
	for id := range writers {
		done.Add(1)
		mine := rand.New(rand.NewPCG(random.Uint64(), uint64(id)))
		go func() {
			defer done.Done()
			write(server, book, id, mine)
		}()
	}
	<-time.After(time.Duration(30+random.IntN(400)) * time.Millisecond)
	if random.IntN(5) == 0 { // an orderly stop under load must not lose anything either
		if _, err := server.Terminate(); err != nil {
			t.Error(err)
		}
	}
	server.Kill()
	done.Wait()
}

func write(server *harness.Server, book *ledger, id int, random *rand.Rand) {
	conn, err := server.Dial()
	if err != nil {
		return
	}
	defer conn.Close()
	kv := pb.NewKVClient(conn)
	for {
		w := book.next(id, random)
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		resp, err := kv.Txn(ctx, w.request())
		cancel()
		if err != nil {
			book.leaveOpen(w)
			return
		}
		book.acknowledge(w, resp.Header.Revision)
	}
}

// holdLease puts two keys under leases: one that outlives the test, and one
// that must expire once the server is left in peace.
func holdLease(t *testing.T, server *harness.Server, book *ledger) {
	t.Helper()
	conn := server.Conn(t)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for id, ttl := range map[int64]int64{longLease: 100_000, shortLease: 4} {
		if _, err := pb.NewLeaseClient(conn).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: id, TTL: ttl}); err != nil {
			t.Fatal(err)
		}
		w := book.fixed(fmt.Sprintf("lease/%d", id), "held", id)
		resp, err := pb.NewKVClient(conn).Txn(ctx, w.request())
		if err != nil {
			t.Fatal(err)
		}
		book.acknowledge(w, resp.Header.Revision)
	}
}

// awaitExpiry waits for the short lease's key to go, and sees that the long
// lease still holds its own.
func awaitExpiry(t *testing.T, server *harness.Server, book *ledger) {
	t.Helper()
	conn := server.Conn(t)
	kv, lease := pb.NewKVClient(conn), pb.NewLeaseClient(conn)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	harness.Eventually(t, 20*time.Second, func() error {
		resp, err := kv.Range(ctx, &pb.RangeRequest{Key: fmt.Appendf(nil, "lease/%d", shortLease)})
		if err == nil && resp.Count != 0 {
			err = fmt.Errorf("the key of an expired lease is still there")
		}
		return err
	})
	left, err := lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: longLease, Keys: true})
	if err != nil || left.TTL <= 0 || len(left.Keys) != 1 || string(left.Keys[0]) != fmt.Sprintf("lease/%d", longLease) {
		t.Errorf("the long lease after all restarts: %v, %v", left, err)
	}
}
