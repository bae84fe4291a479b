package concurrency

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc/status"
)

// TestLock: the oldest key holds, the next follows when it goes, and asking
// again is no harm.
func TestLock(t *testing.T) {
	play(t, func(s *scene) {
		for _, id := range []int64{0x1a, 0x2b, -7} {
			s.lease(id, 600)
		}
		first, err := s.lock.Lock(s.ctx, &v3lockpb.LockRequest{Name: []byte("l"), Lease: 0x1a})
		s.note("first: %s %q at %d", outcome(err), first.GetKey(), first.GetHeader().GetRevision())
		again, err := s.lock.Lock(s.ctx, &v3lockpb.LockRequest{Name: []byte("l"), Lease: 0x1a})
		s.note("again: %s %q at %d", outcome(err), again.GetKey(), again.GetHeader().GetRevision())
		type got struct {
			resp *v3lockpb.LockResponse
			err  error
		}
		waiting := make(chan got)
		for i, id := range []int64{-7, 0x2b} {
			go func() {
				resp, err := s.lock.Lock(s.ctx, &v3lockpb.LockRequest{Name: []byte("l"), Lease: id})
				waiting <- got{resp, err}
			}()
			s.awaitKeys("l/", int64(i+2))
		}
		s.keys("l/")
		for _, key := range []string{"l/1a", "l/-7"} {
			freed, err := s.lock.Unlock(s.ctx, &v3lockpb.UnlockRequest{Key: []byte(key)})
			s.note("unlock %s: %s at %d", key, outcome(err), freed.GetHeader().GetRevision())
			next := <-waiting
			s.note("next: %s %q at %d", outcome(next.err), next.resp.GetKey(), next.resp.GetHeader().GetRevision())
		}
		freed, err := s.lock.Unlock(s.ctx, &v3lockpb.UnlockRequest{Key: []byte("nothing")})
		s.note("unlock nothing: %s at %d", outcome(err), freed.GetHeader().GetRevision())
		_, err = s.lock.Unlock(s.ctx, &v3lockpb.UnlockRequest{})
		s.note("unlock no key: %s", outcome(err))
		_, err = s.lock.Lock(s.ctx, &v3lockpb.LockRequest{Name: []byte("l"), Lease: 99})
		s.note("unknown lease: %s", outcome(err))
		other, err := s.lock.Lock(s.ctx, &v3lockpb.LockRequest{Lease: 0x1a})
		s.note("no name: %s %q", outcome(err), other.GetKey())
		_, err = s.lock.Lock(s.ctx, &v3lockpb.LockRequest{Name: []byte(strings.Repeat("n", 1_700_000)), Lease: 0x1a})
		s.note("long name: %s", outcome(err))
		s.keys("")
	})
}

// TestLockWithoutALease: the server grants one for a minute.
func TestLockWithoutALease(t *testing.T) {
	play(t, func(s *scene) {
		resp, err := s.lock.Lock(s.ctx, &v3lockpb.LockRequest{Name: []byte("l")})
		s.note("%s %s at %d", outcome(err), withoutLeases(string(resp.GetKey())), resp.GetHeader().GetRevision())
		found, err := s.client.Get(s.ctx, "l/", clientv3.WithPrefix())
		s.check(err, "reading the key")
		lease := found.Kvs[0].Lease
		s.note("the key names the lease: %v", string(resp.Key) == fmt.Sprintf("l/%x", lease))
		left, err := s.client.TimeToLive(s.ctx, clientv3.LeaseID(lease))
		s.note("%s granted %d", outcome(err), left.GrantedTTL)
	})
}

// TestLockGivenUp: a call that is cancelled, runs out of time or loses its
// connection leaves no key in the line, and the line goes on.
func TestLockGivenUp(t *testing.T) {
	play(t, func(s *scene) {
		for id := int64(1); id <= 4; id++ {
			s.lease(id, 600)
		}
		held, err := s.lock.Lock(s.ctx, &v3lockpb.LockRequest{Name: []byte("l"), Lease: 1})
		s.check(err, "the first lock")
		ctx, cancel := context.WithCancel(s.ctx)
		ended := make(chan error, 1)
		go func() {
			_, err := s.lock.Lock(ctx, &v3lockpb.LockRequest{Name: []byte("l"), Lease: 2})
			ended <- err
		}()
		s.awaitKeys("l/", 2)
		s.keys("l/")
		last := make(chan string, 1)
		go func() {
			resp, err := s.lock.Lock(s.ctx, &v3lockpb.LockRequest{Name: []byte("l"), Lease: 4})
			last <- fmt.Sprintf("%s %q at %d", outcome(err), resp.GetKey(), resp.GetHeader().GetRevision())
		}()
		s.awaitKeys("l/", 3)
		cancel()
		s.note("cancelled: %s", outcome(<-ended))
		s.awaitKeys("l/", 2)
		s.keys("l/")
		hasty, cancel := context.WithTimeout(s.ctx, time.Second)
		defer cancel()
		_, err = s.lock.Lock(hasty, &v3lockpb.LockRequest{Name: []byte("l"), Lease: 3})
		// The text depends on who notices first, the client or the server.
		s.note("out of time: %s", status.Code(err))
		s.awaitKeys("l/", 2)
		s.keys("l/")
		conn, err := s.server.Dial()
		s.check(err, "another connection")
		go func() {
			_, err := v3lockpb.NewLockClient(conn).Lock(s.ctx, &v3lockpb.LockRequest{Name: []byte("l"), Lease: 2})
			ended <- err
		}()
		s.awaitKeys("l/", 3)
		conn.Close()
		<-ended
		s.awaitKeys("l/", 2)
		s.keys("l/")
		_, err = s.lock.Unlock(s.ctx, &v3lockpb.UnlockRequest{Key: held.Key})
		s.note("unlock: %s", outcome(err))
		s.note("the last in line: %s", <-last)
	})
}

// TestLockLosesItsLease: who waits learns of its lost lease when its turn
// comes; who holds the lock loses it with the lease.
func TestLockLosesItsLease(t *testing.T) {
	play(t, func(s *scene) {
		for id := int64(1); id <= 3; id++ {
			s.lease(id, 600)
		}
		_, err := s.lock.Lock(s.ctx, &v3lockpb.LockRequest{Name: []byte("l"), Lease: 1})
		s.check(err, "the first lock")
		ended := make(chan string, 2)
		for i, id := range []int64{2, 3} {
			go func() {
				resp, err := s.lock.Lock(s.ctx, &v3lockpb.LockRequest{Name: []byte("l"), Lease: id})
				ended <- fmt.Sprintf("%s %q", outcome(err), resp.GetKey())
			}()
			s.awaitKeys("l/", int64(i+2))
		}
		_, err = s.client.Revoke(s.ctx, 2)
		s.note("revoke the one in the middle: %s", outcome(err))
		_, err = s.client.Revoke(s.ctx, 1)
		s.note("revoke the holder: %s", outcome(err))
		both := []string{<-ended, <-ended}
		if both[0] > both[1] {
			both[0], both[1] = both[1], both[0]
		}
		s.note("%v", both)
		s.keys("l/")
	})
}

// TestLeaseExpiresInLine: nobody renews the holder's short lease.
func TestLeaseExpiresInLine(t *testing.T) {
	play(t, func(s *scene) {
		s.lease(1, 2)
		s.lease(2, 600)
		_, err := s.lock.Lock(s.ctx, &v3lockpb.LockRequest{Name: []byte("l"), Lease: 1})
		s.check(err, "the first lock")
		next, err := s.lock.Lock(s.ctx, &v3lockpb.LockRequest{Name: []byte("l"), Lease: 2})
		s.note("next: %s %q at %d", outcome(err), next.GetKey(), next.GetHeader().GetRevision())
		s.keys("l/")
	})
}

// TestContenders: a hundred contend for one lock through the service, another
// hundred through the client's own mutex for the same one; never two hold it.
func TestContenders(t *testing.T) {
	play(t, func(s *scene) {
		const each = 100
		var holders, most, turns atomic.Int64
		var done sync.WaitGroup
		hold := func() {
			now := holders.Add(1)
			for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
			}
			turns.Add(1)
			_, err := s.client.Put(s.ctx, "shared", "x")
			if err != nil {
				s.note("put: %v", err)
			}
			holders.Add(-1)
		}
		for i := range each {
			s.lease(int64(1000+i), 600)
			done.Add(2)
			go func() {
				defer done.Done()
				resp, err := s.lock.Lock(s.ctx, &v3lockpb.LockRequest{Name: []byte("c"), Lease: int64(1000 + i)})
				if err != nil {
					s.note("lock: %s", outcome(err))
					return
				}
				hold()
				if _, err := s.lock.Unlock(s.ctx, &v3lockpb.UnlockRequest{Key: resp.Key}); err != nil {
					s.note("unlock: %s", outcome(err))
				}
			}()
			go func() {
				defer done.Done()
				session, err := concurrency.NewSession(s.client, concurrency.WithTTL(60))
				if err != nil {
					s.note("session: %v", err)
					return
				}
				defer session.Close()
				mutex := concurrency.NewMutex(session, "c")
				if err := mutex.Lock(s.ctx); err != nil {
					s.note("mutex: %v", err)
					return
				}
				hold()
				if err := mutex.Unlock(s.ctx); err != nil {
					s.note("unlock: %v", err)
				}
			}()
		}
		done.Wait()
		s.note("turns %d, most holders at once %d", turns.Load(), most.Load())
		s.keys("c/")
	})
}
