package concurrency

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// TestClientMutex: sessions, mutexes, TryLock and a session that ends.
func TestClientMutex(t *testing.T) {
	play(t, func(s *scene) {
		var sessions []*concurrency.Session
		for id := int64(1); id <= 3; id++ {
			s.lease(id, 600)
			session, err := concurrency.NewSession(s.client, concurrency.WithLease(clientv3.LeaseID(id)))
			s.check(err, "a session")
			sessions = append(sessions, session)
		}
		m1, m2 := concurrency.NewMutex(sessions[0], "m"), concurrency.NewMutex(sessions[1], "m")
		s.note("lock: %v %s at %d", m1.Lock(s.ctx), m1.Key(), m1.Header().Revision)
		s.note("try: %v", m2.TryLock(s.ctx))
		s.keys("m/")
		waits := make(chan error, 1)
		go func() { waits <- m2.Lock(s.ctx) }()
		s.awaitKeys("m/", 2)
		s.note("unlock: %v", m1.Unlock(s.ctx))
		s.note("second: %v %s at %d", <-waits, m2.Key(), m2.Header().Revision)
		s.note("unlock again: %v", m1.Unlock(s.ctx))
		txn, err := s.client.Txn(s.ctx).If(m2.IsOwner()).Then(clientv3.OpPut("guarded", "x")).Commit()
		s.note("owner: %v %v", txn.Succeeded, err)
		m3 := concurrency.NewMutex(sessions[2], "m")
		go func() { waits <- m3.Lock(s.ctx) }()
		s.awaitKeys("m/", 2)
		s.note("close: %v", sessions[1].Close())
		<-sessions[1].Done()
		s.note("third: %v", <-waits)
		txn, err = s.client.Txn(s.ctx).If(m2.IsOwner()).Then(clientv3.OpPut("guarded", "y")).Commit()
		s.note("owner no more: %v %v", txn.Succeeded, err)
		s.keys("m/")
	})
}

// TestClientElection: the client's own election, with several observers.
func TestClientElection(t *testing.T) {
	play(t, func(s *scene) {
		var elections []*concurrency.Election
		for id := int64(1); id <= 2; id++ {
			s.lease(id, 600)
			session, err := concurrency.NewSession(s.client, concurrency.WithLease(clientv3.LeaseID(id)))
			s.check(err, "a session")
			elections = append(elections, concurrency.NewElection(session, "e"))
		}
		_, err := elections[0].Leader(s.ctx)
		s.note("nobody: %v", err)
		ctx, cancel := context.WithCancel(s.ctx)
		seen := elections[1].Observe(ctx)
		s.note("campaign: %v", elections[0].Campaign(s.ctx, "one"))
		s.note("observed %s", (<-seen).Kvs[0].Value)
		won := make(chan error, 1)
		go func() { won <- elections[1].Campaign(s.ctx, "two") }()
		s.awaitKeys("e/", 2)
		s.note("proclaim: %v", elections[0].Proclaim(s.ctx, "more"))
		s.note("observed %s", (<-seen).Kvs[0].Value)
		s.note("resign: %v", elections[0].Resign(s.ctx))
		s.note("second: %v rev %d", <-won, elections[1].Rev())
		s.note("observed %s", (<-seen).Kvs[0].Value)
		s.note("proclaim of who resigned: %v", elections[0].Proclaim(s.ctx, "x"))
		cancel()
		for range seen {
		}
		s.keys("e/")
	})
}

// TestSTM: transfers between accounts at every isolation; money is neither
// made nor lost, and an apply that fails changes nothing.
func TestSTM(t *testing.T) {
	play(t, func(s *scene) {
		const accounts, transfers = 5, 100
		for i := range accounts {
			_, err := s.client.Put(s.ctx, account(i), "100")
			s.check(err, "opening an account")
		}
		levels := []concurrency.Isolation{concurrency.SerializableSnapshot, concurrency.Serializable, concurrency.RepeatableReads}
		var done sync.WaitGroup
		for n := range transfers {
			done.Add(1)
			go func() {
				defer done.Done()
				from, to := account(n%accounts), account((n*3+1)%accounts)
				if from == to {
					return
				}
				apply := func(stm concurrency.STM) error {
					a, err := strconv.Atoi(stm.Get(from))
					if err != nil {
						return err
					}
					b, err := strconv.Atoi(stm.Get(to))
					if err != nil {
						return err
					}
					stm.Put(from, strconv.Itoa(a-1))
					stm.Put(to, strconv.Itoa(b+1))
					return nil
				}
				if _, err := concurrency.NewSTM(s.client, apply, concurrency.WithIsolation(levels[n%len(levels)]), concurrency.WithAbortContext(s.ctx)); err != nil {
					s.note("transfer: %v", err)
				}
			}()
		}
		done.Wait()
		found, err := s.client.Get(s.ctx, "account/", clientv3.WithPrefix())
		s.check(err, "reading the accounts")
		for _, kv := range found.Kvs {
			s.note("%s %s version %d", kv.Key, kv.Value, kv.Version)
		}
		_, err = concurrency.NewSTM(s.client, func(stm concurrency.STM) error {
			stm.Put(account(0), "stolen")
			return errors.New("changed my mind")
		})
		s.note("given up: %v", err)
		_, err = concurrency.NewSTM(s.client, func(stm concurrency.STM) error {
			stm.Del(account(1))
			stm.Put("fresh", stm.Get("missing")+"x")
			return nil
		})
		s.note("delete and create: %v", err)
		s.keys("fresh")
		s.keys(account(1))
	})
}

func account(n int) string { return fmt.Sprintf("account/%d", n) }
