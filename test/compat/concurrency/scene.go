// Package concurrency asks the Lock and Election services and the official
// client's concurrency package of both servers, and compares what each step of
// a story shows.
//
// A story is one program. It runs once on the reference and once on the
// subject, side by side, and writes down what a client can observe: answers,
// errors with their codes, keys with their values and revisions. The two
// reports must be equal.
package concurrency

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"go.uber.org/zap"
	"google.golang.org/grpc/status"

	"milepost.dev/test/compat/harness"
)

// within bounds every wait of a story; stories need a few seconds at most.
const within = 40 * time.Second

// scene is one server on which a story takes place, with what it has shown.
type scene struct {
	ctx      context.Context
	server   *harness.Server
	client   *clientv3.Client
	lock     v3lockpb.LockClient
	election v3electionpb.ElectionClient

	mu     sync.Mutex
	report []string
	fail   error
}

// note writes down one observation. Stories that do several things at once
// note only what has a fixed order.
func (s *scene) note(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.report = append(s.report, fmt.Sprintf(format, args...))
}

// check ends the story when the server does what makes it pointless.
func (s *scene) check(err error, doing string) {
	if err != nil {
		panic(broken{fmt.Errorf("%s: %w", doing, err)})
	}
}

type broken struct{ error }

// lease grants one with this id, which is never renewed.
func (s *scene) lease(id, ttl int64) {
	_, err := pb.NewLeaseClient(s.client.ActiveConnection()).LeaseGrant(s.ctx, &pb.LeaseGrantRequest{ID: id, TTL: ttl})
	s.check(err, "granting a lease")
}

// keys writes down what is below a prefix.
func (s *scene) keys(prefix string) {
	resp, err := s.client.Get(s.ctx, prefix, clientv3.WithPrefix())
	s.check(err, "reading keys")
	for _, kv := range resp.Kvs {
		s.note("  %s", show(kv))
	}
	s.note("  %d keys below %s", resp.Count, prefix)
}

func show(kv *mvccpb.KeyValue) string {
	return fmt.Sprintf("%s=%q create %d mod %d version %d lease %x",
		kv.Key, kv.Value, kv.CreateRevision, kv.ModRevision, kv.Version, kv.Lease)
}

// outcome is an error as a client sees it.
func outcome(err error) string {
	if err == nil {
		return "ok"
	}
	s := status.Convert(err)
	return fmt.Sprintf("%s: %s", s.Code(), s.Message())
}

// awaitKeys returns once so many keys are below a prefix.
func (s *scene) awaitKeys(prefix string, n int64) {
	watch := s.client.Watch(s.ctx, prefix, clientv3.WithPrefix())
	for {
		resp, err := s.client.Get(s.ctx, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
		s.check(err, "counting keys")
		if resp.Count == n {
			return
		}
		select {
		case _, ok := <-watch:
			if !ok {
				panic(broken{fmt.Errorf("waiting for %d keys below %s: the watch ended", n, prefix)})
			}
		case <-s.ctx.Done():
			panic(broken{fmt.Errorf("waiting for %d keys below %s: there are %d", n, prefix, resp.Count)})
		}
	}
}

// play runs a story on both servers and compares the reports.
func play(t *testing.T, story func(*scene)) {
	t.Helper()
	t.Parallel()
	sides := []harness.Binary{harness.Reference(t), harness.Subject(t)}
	reports := make([]string, len(sides))
	var done sync.WaitGroup
	for i, side := range sides {
		server := harness.Start(t, side, harness.Options{NoSync: true})
		done.Add(1)
		go func() {
			defer done.Done()
			reports[i] = tell(server, story)
		}()
	}
	done.Wait()
	if reports[0] != reports[1] {
		t.Errorf("the stories differ\n--- reference\n%s\n--- subject\n%s", reports[0], reports[1])
	}
	if strings.Contains(reports[0], "broken off") {
		t.Errorf("the story cannot be told:\n%s", reports[0])
	}
	t.Logf("%d observations, all equal", strings.Count(reports[0], "\n"))
}

func tell(server *harness.Server, story func(*scene)) (report string) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	s := &scene{ctx: ctx, server: server}
	defer func() {
		if r := recover(); r != nil {
			b, ok := r.(broken)
			if !ok {
				panic(r)
			}
			s.note("broken off: %v", b.error)
		}
		report = strings.Join(s.report, "\n") + "\n"
	}()
	client, err := clientv3.New(clientv3.Config{
		Endpoints: []string{strings.TrimPrefix(server.ClientURL, "http://")}, DialTimeout: 5 * time.Second, Logger: zap.NewNop(),
	})
	s.check(err, "dialling")
	defer client.Close()
	s.client = client
	s.lock = v3lockpb.NewLockClient(client.ActiveConnection())
	s.election = v3electionpb.NewElectionClient(client.ActiveConnection())
	story(s)
	return ""
}

// leaseName replaces lease ids that a server chose.
var leaseName = regexp.MustCompile(`[0-9a-f]{10,16}`)

func withoutLeases(text string) string { return leaseName.ReplaceAllString(text, "LEASE") }
