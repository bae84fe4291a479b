package cluster

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"milepost.dev/test/compat/harness"
)

// electionTimeout is what ticks says.
const electionTimeout = 500 * time.Millisecond

// TestLeasesOverLeaders: keep-alives and questions for the time left go through
// followers; a lease outlives its leader's death as long as it is kept alive; one
// that nobody keeps alive ends, with its keys, not before its time and not long
// after the extension that a new leader gives.
func TestLeasesOverLeaders(t *testing.T) {
	parallel(t)
	ctx := deadline(t, 2*time.Minute)
	c := started(t, of(t, 3))
	counts := newTally(t, "keep-alives through a follower", "times to live through a follower", "leases ended", "leader changes survived")
	followers := func() []*Member {
		leader, err := c.Leader(ctx)
		must(t, err)
		return slices.DeleteFunc(c.Running(), func(m *Member) bool { return m == leader })
	}
	all, err := c.Client()
	must(t, err)
	defer all.Close()
	const kept, left = clientv3.LeaseID(501), 502
	for _, lease := range []clientv3.LeaseID{kept, left} {
		conn, err := followers()[0].Conn()
		must(t, err)
		_, err = pb.NewLeaseClient(conn).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: int64(lease), TTL: 4})
		must(t, err)
		conn.Close()
		_, err = all.Put(ctx, fmt.Sprintf("lease/%d", lease), "held", clientv3.WithLease(lease))
		must(t, err)
	}
	granted := time.Now()
	alive, err := all.KeepAlive(ctx, kept)
	must(t, err)
	go func() {
		for range alive { // the client wants its answers read
		}
	}()
	through := func() {
		for _, m := range followers() {
			client, err := m.Client()
			must(t, err)
			answer, err := client.KeepAliveOnce(ctx, kept)
			must(t, err)
			if answer.TTL != 4 {
				t.Errorf("a keep-alive through %s granted %d s", m, answer.TTL)
			}
			counts.add("keep-alives through a follower", 1)
			ttl, err := client.TimeToLive(ctx, kept, clientv3.WithAttachedKeys())
			must(t, err)
			if ttl.TTL < 2 || ttl.TTL > 4 || ttl.GrantedTTL != 4 || len(ttl.Keys) != 1 {
				t.Errorf("the time left through %s is %d of %d s, keys %q", m, ttl.TTL, ttl.GrantedTTL, ttl.Keys)
			}
			unknown, err := client.TimeToLive(ctx, 999)
			must(t, err)
			if unknown.TTL != -1 {
				t.Errorf("an unknown lease through %s has %d s left", m, unknown.TTL)
			}
			if _, err := client.KeepAliveOnce(ctx, 999); err == nil || !strings.Contains(err.Error(), "requested lease not found") {
				t.Errorf("a keep-alive of an unknown lease through %s: %v", m, err)
			}
			counts.add("times to live through a follower", 1)
			client.Close()
		}
	}
	through()
	leader, err := c.Leader(ctx)
	must(t, err)
	leader.Kill()
	newLeader, err := c.Leader(ctx)
	must(t, err)
	changed := time.Now()
	counts.add("leader changes survived", 1)
	must(t, newLeader.WaitReady(ctx))
	through()
	// The lease that nobody keeps alive: the new leader gives it its whole time
	// and an election timeout once more.
	gone := awaitGone(ctx, t, all, fmt.Sprintf("lease/%d", left))
	if early := gone.Sub(granted); early < 4*time.Second {
		t.Errorf("a lease of 4 s ended after %s", early)
	}
	// The scan for expired ones is every half second; the rest is for a busy machine.
	if late := gone.Sub(changed); late > 4*time.Second+electionTimeout+5*time.Second {
		t.Errorf("a lease of 4 s ended %s after the change of the leader", late)
	}
	counts.add("leases ended", 1)
	must(t, leader.Start())
	must(t, c.WaitReady(ctx))
	lead(ctx, t, c, leader)
	counts.add("leader changes survived", 1)
	must(t, c.WaitReady(ctx))
	through()
	// Revoked through a follower, its key goes.
	client, err := followers()[0].Client()
	must(t, err)
	defer client.Close()
	_, err = client.Revoke(ctx, kept)
	must(t, err)
	awaitGone(ctx, t, all, fmt.Sprintf("lease/%d", kept))
	counts.add("leases ended", 1)
	_, err = c.SameHashes(ctx)
	must(t, err)
}

func awaitGone(ctx context.Context, t *testing.T, client *clientv3.Client, key string) time.Time {
	t.Helper()
	for {
		got, err := client.Get(ctx, key)
		must(t, err)
		if len(got.Kvs) == 0 {
			return time.Now()
		}
		must(t, pause(ctx))
	}
}

// TestHandOver: MoveLeader moves it to each member in turn and says what etcd
// says when it cannot; a leader that gets SIGTERM hands over before it ends: the
// others have a leader without waiting for an election timeout.
func TestHandOver(t *testing.T) {
	parallel(t)
	ctx := deadline(t, 2*time.Minute)
	// An election timeout that a hand-over is told from with certainty.
	c := prepare(t, of(t, 3))
	c.args = append(c.args, "--election-timeout=5000", "--heartbeat-interval=100")
	must(t, c.Start(ctx))
	counts := newTally(t, "moved", "refused", "handed over on SIGTERM")
	ids := map[*Member]uint64{}
	for _, m := range c.Members() {
		status, err := m.Status(ctx)
		must(t, err)
		ids[m] = status.Header.MemberId
	}
	move := func(at *Member, target uint64) error {
		conn, err := at.Conn()
		must(t, err)
		defer conn.Close()
		short, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		_, err = pb.NewMaintenanceClient(conn).MoveLeader(short, &pb.MoveLeaderRequest{TargetID: target})
		return err
	}
	for _, m := range c.Members() {
		leader, err := c.Leader(ctx)
		must(t, err)
		for _, other := range c.Members() {
			if other != leader {
				refused(t, counts, move(other, ids[m]), "etcdserver: not leader")
			}
		}
		refused(t, counts, move(leader, 4711), "etcdserver: bad leader transferee")
		must(t, move(leader, ids[m]))
		now, err := c.Leader(ctx)
		must(t, err)
		if now != m {
			t.Errorf("moved to %s, but %s leads", m, now)
		}
		counts.add("moved", 1)
	}
	for range 2 {
		leader, err := c.Leader(ctx)
		must(t, err)
		began := time.Now()
		how, err := leader.Terminate(30 * time.Second)
		must(t, err)
		if how != "signal terminated" {
			t.Errorf("SIGTERM ended %s with %s", leader, how)
		}
		ended := time.Now()
		_, err = c.Leader(ctx)
		must(t, err)
		if took := time.Since(ended); took >= 5*time.Second { // the shortest election timeout
			t.Errorf("no leader until %s after %s ended: it handed nothing over", took, leader)
		}
		t.Logf("%s ended within %s; the others had a leader %s later", leader, ended.Sub(began), time.Since(ended))
		counts.add("handed over on SIGTERM", 1)
		must(t, leader.Start())
		must(t, c.WaitReady(ctx))
	}
}

func refused(t *testing.T, counts *tally, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("refused with %v, etcd says %q", err, text)
	}
	counts.add("refused", 1)
}

// answer is how one request ended: code and text, and about when.
type answer struct {
	text  string
	after time.Duration
}

// withoutQuorum asks the survivor of three for everything, each with and
// without the wish for a leader, and returns how each ended.
func withoutQuorum(ctx context.Context, t *testing.T, bin harness.Binary) map[string]answer {
	t.Helper()
	c := started(t, []harness.Binary{bin, bin, bin})
	all, err := c.Client()
	must(t, err)
	defer all.Close()
	_, err = all.Put(ctx, "q", "1")
	must(t, err)
	_, err = all.Grant(ctx, 600) // so that there is a lease
	must(t, err)
	must(t, c.WaitReady(ctx))
	leader, err := c.Leader(ctx)
	must(t, err)
	survivor := another(c, leader)
	conn, err := survivor.Conn()
	must(t, err)
	defer conn.Close()
	kv, lease, cluster, maintenance := pb.NewKVClient(conn), pb.NewLeaseClient(conn), pb.NewClusterClient(conn), pb.NewMaintenanceClient(conn)
	granted, err := lease.LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
	must(t, err)
	id := granted.Leases[0].ID

	out := map[string]answer{}
	var mu sync.Mutex
	var asked sync.WaitGroup
	var lost time.Time
	ask := func(name string, f func(context.Context) error) {
		asked.Add(1)
		go func() {
			defer asked.Done()
			began := time.Now()
			err := f(ctx)
			a := answer{text: "ok", after: time.Since(began)}
			if err != nil {
				a.text = err.Error()
			}
			mu.Lock()
			defer mu.Unlock()
			out[name] = a
		}()
	}
	// Streams that are open when the quorum goes.
	for _, needs := range []bool{false, true} {
		watching, err := pb.NewWatchClient(conn).Watch(wish(ctx, needs))
		must(t, err)
		must(t, watching.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("q")}}}))
		_, err = watching.Recv()
		must(t, err)
		keeping, err := lease.LeaseKeepAlive(wish(ctx, needs))
		must(t, err)
		if needs {
			ask("open watch that needs a leader", func(context.Context) error { _, err := watching.Recv(); return err })
			ask("open keep-alive that needs a leader", func(context.Context) error { _, err := keeping.Recv(); return err })
			continue
		}
		ask("open watch", func(ctx context.Context) error {
			return within(ctx, 9*time.Second, func() error { _, err := watching.Recv(); return err })
		})
	}
	for _, m := range c.Members() {
		if m != survivor {
			m.Kill()
		}
	}
	lost = time.Now()
	harness.Eventually(t, 20*time.Second, func() error {
		status, err := survivor.Status(ctx)
		if err == nil && status.Leader != 0 {
			err = fmt.Errorf("it still believes in a leader")
		}
		return err
	})
	t.Logf("%s: no leader %s after the quorum was lost", bin.Name, time.Since(lost).Round(time.Millisecond))
	for _, needs := range []bool{false, true} {
		name := func(s string) string {
			if needs {
				return s + " that needs a leader"
			}
			return s
		}
		for what, f := range map[string]func(ctx context.Context) error{
			"put": func(ctx context.Context) error {
				_, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("q")})
				return err
			},
			"txn": func(ctx context.Context) error {
				_, err := kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("q")}}}}})
				return err
			},
			"range": func(ctx context.Context) error {
				_, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("q")})
				return err
			},
			"serializable range": func(ctx context.Context) error {
				_, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("q"), Serializable: true})
				return err
			},
			"read-only txn": func(ctx context.Context) error {
				_, err := kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("q")}}}}})
				return err
			},
			"compact": func(ctx context.Context) error {
				_, err := kv.Compact(ctx, &pb.CompactionRequest{Revision: 1})
				return err
			},
			"lease grant": func(ctx context.Context) error {
				_, err := lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 60})
				return err
			},
			"lease revoke": func(ctx context.Context) error {
				_, err := lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: id})
				return err
			},
			"lease time to live": func(ctx context.Context) error {
				_, err := lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: id})
				return err
			},
			"keep-alive": func(ctx context.Context) error {
				stream, err := lease.LeaseKeepAlive(ctx)
				if err != nil {
					return err
				}
				if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
					return err
				}
				_, err = stream.Recv()
				return err
			},
			"new watch": func(ctx context.Context) error {
				stream, err := pb.NewWatchClient(conn).Watch(ctx)
				if err != nil {
					return err
				}
				if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{Key: []byte("q")}}}); err != nil {
					return err
				}
				_, err = stream.Recv()
				return err
			},
			"member list": func(ctx context.Context) error {
				_, err := cluster.MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
				return err
			},
			"serializable member list": func(ctx context.Context) error {
				_, err := cluster.MemberList(ctx, &pb.MemberListRequest{})
				return err
			},
			"member add": func(ctx context.Context) error {
				_, err := cluster.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{"http://127.0.0.1:9"}})
				return err
			},
			// Etcd waits as long as the client does.
			"member remove": func(ctx context.Context) error {
				ctx, cancel := context.WithTimeout(ctx, 7*time.Second)
				defer cancel()
				_, err := cluster.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: 4711})
				return err
			},
			"alarm": func(ctx context.Context) error {
				_, err := maintenance.Alarm(ctx, &pb.AlarmRequest{})
				return err
			},
			"status": func(ctx context.Context) error {
				_, err := maintenance.Status(ctx, &pb.StatusRequest{})
				return err
			},
			"move leader": func(ctx context.Context) error {
				_, err := maintenance.MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: 1})
				return err
			},
			"hash of the keys": func(ctx context.Context) error {
				_, err := maintenance.HashKV(ctx, &pb.HashKVRequest{})
				return err
			},
		} {
			ask(name(what), func(ctx context.Context) error { return f(wish(ctx, needs)) })
		}
	}
	asked.Wait()
	return out
}

func wish(ctx context.Context, leader bool) context.Context {
	if leader {
		return clientv3.WithRequireLeader(ctx)
	}
	return ctx
}

// within says "still open" when f does not end in time.
func within(ctx context.Context, limit time.Duration, f func() error) error {
	ended := make(chan error, 1)
	go func() { ended <- f() }()
	select {
	case err := <-ended:
		return err
	case <-time.After(limit):
		return fmt.Errorf("still open")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// TestWithoutQuorum: what a lone survivor of three answers is what an etcd in
// its place answers, as code and as text, at once or at the request timeout like
// etcd, and nothing hangs.
func TestWithoutQuorum(t *testing.T) {
	parallel(t)
	counts := newTally(t, "answers equal to etcd's", "at once", "at the request timeout")
	results := make([]map[string]answer, 2)
	t.Run("both", func(t *testing.T) {
		for i, bin := range []harness.Binary{harness.Reference(t), harness.Subject(t)} {
			t.Run(bin.Name, func(t *testing.T) {
				t.Parallel()
				// From here on: others may have had their turn before.
				results[i] = withoutQuorum(deadline(t, 90*time.Second), t, bin)
			})
		}
	})
	want, got := results[0], results[1]
	for _, name := range slices.Sorted(maps.Keys(want)) {
		w, g := want[name], got[name]
		t.Logf("%-45s %-90s etcd after %6s, subject after %6s", name, w.text, w.after.Round(10*time.Millisecond), g.after.Round(10*time.Millisecond))
		if w.text != g.text {
			t.Errorf("%s:\n etcd    %s\n subject %s", name, w.text, g.text)
			continue
		}
		counts.add("answers equal to etcd's", 1)
		// The request timeout is six seconds here; what ends long before it must
		// not wait for it, and what ends by it must not last much longer.
		const timeout, early = 6 * time.Second, 3 * time.Second
		switch {
		case w.after < early && g.after >= timeout:
			t.Errorf("%s: etcd answers after %s, the subject after %s", name, w.after, g.after)
		case g.after > w.after+timeout:
			t.Errorf("%s: the subject answers after %s, etcd after %s", name, g.after, w.after)
		case w.after < early:
			counts.add("at once", 1)
		default:
			counts.add("at the request timeout", 1)
		}
	}
}
