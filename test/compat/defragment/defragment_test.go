// Package defragment rewrites the store of a server under load, kills it in
// the middle, and looks at what is left.
package defragment

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"milepost.dev/test/compat/harness"
)

// Size of the store: keys × versions × valueBytes, most of it then compacted.
const (
	valueBytes = 16 << 10
	versions   = 4
)

type server struct {
	*harness.Server
	t     *testing.T
	ctx   context.Context
	conn  *grpc.ClientConn
	kv    pb.KVClient
	keys  int
	maint pb.MaintenanceClient
}

// start runs the subject with a store of which three quarters are free space.
func start(t *testing.T, opts harness.Options) *server {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Minute)
	t.Cleanup(cancel)
	keys := harness.IntEnv(t, "DEFRAGMENT_KEYS", 2000)
	s := &server{Server: harness.Start(t, harness.Subject(t), opts), t: t, ctx: ctx, keys: keys}
	s.dial()
	var done sync.WaitGroup
	for worker := range 8 {
		done.Add(1)
		go func() {
			defer done.Done()
			noise := rand.New(rand.NewPCG(uint64(worker), 1))
			for n := worker; n < keys*versions; n += 8 {
				value := make([]byte, valueBytes)
				for i := range value {
					value[i] = byte(noise.Uint32())
				}
				if _, err := s.kv.Put(ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "k%05d", n%keys), Value: value}); err != nil {
					t.Errorf("put: %v", err)
					return
				}
			}
		}()
	}
	done.Wait()
	if t.Failed() {
		t.FailNow()
	}
	s.compact()
	return s
}

// dial replaces the connection, as after a restart.
func (s *server) dial() {
	s.conn = s.Conn(s.t)
	s.kv, s.maint = pb.NewKVClient(s.conn), pb.NewMaintenanceClient(s.conn)
}

func (s *server) compact() {
	s.t.Helper()
	now, err := s.kv.Range(s.ctx, &pb.RangeRequest{Key: []byte("k")})
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.kv.Compact(s.ctx, &pb.CompactionRequest{Revision: now.Header.Revision, Physical: true}); err != nil {
		s.t.Fatal(err)
	}
	// A hash at just this revision would be the one that the compaction took, until the next start.
	if _, err := s.kv.Put(s.ctx, &pb.PutRequest{Key: []byte("last")}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *server) status() *pb.StatusResponse {
	s.t.Helper()
	status, err := s.maint.Status(s.ctx, &pb.StatusRequest{})
	if err != nil {
		s.t.Fatal(err)
	}
	return status
}

func (s *server) hash(revision int64) uint32 {
	s.t.Helper()
	hash, err := s.maint.HashKV(s.ctx, &pb.HashKVRequest{Revision: revision})
	if err != nil {
		s.t.Fatal(err)
	}
	return hash.Hash
}

// awaitInflight returns once there is a second engine beside the first, or the
// call has already ended. A copy takes some tens of milliseconds: the folder is
// looked at more often than a page could be fetched.
func (s *server) awaitInflight(ended <-chan error) {
	s.t.Helper()
	for until := time.Now().Add(30 * time.Second); time.Now().Before(until); time.Sleep(200 * time.Microsecond) {
		select {
		case err := <-ended:
			s.t.Fatalf("it ended before anybody saw it begin: %v; the store is too small", err)
		default:
		}
		if len(s.engines()) > 1 {
			return
		}
	}
	s.t.Fatal("no second engine appeared")
}

func (s *server) defragment() <-chan error {
	ended := make(chan error, 1)
	maint := s.maint
	go func() {
		_, err := maint.Defragment(s.ctx, &pb.DefragmentRequest{})
		ended <- err
	}()
	return ended
}

// TestDefragmentUnderLoad: the file shrinks, nothing is lost, and whoever puts
// or reads meanwhile is answered; how fast is printed.
func TestDefragmentUnderLoad(t *testing.T) {
	harness.NeedOwnSubject(t)
	s := start(t, harness.Options{})
	before := s.status()
	quiet := s.load(func() { time.Sleep(time.Second) }) // as long as the load lasts: nothing to wait for
	var took time.Duration
	busy := s.load(func() {
		began := time.Now()
		if err := <-s.defragment(); err != nil {
			t.Errorf("defragment: %v", err)
		}
		took = time.Since(began)
	})
	after := s.status()
	t.Logf("%d MiB of %d MiB in use → %d of %d, in %s", before.DbSizeInUse>>20, before.DbSize>>20, after.DbSizeInUse>>20, after.DbSize>>20, took.Round(time.Millisecond))
	t.Logf("before: %v", quiet)
	t.Logf("during: %v", busy)
	if after.DbSize >= before.DbSize*6/10 {
		t.Errorf("the file has %d bytes, %d before", after.DbSize, before.DbSize)
	}
	if busy.puts == 0 || busy.gets == 0 {
		t.Errorf("nobody was answered meanwhile: %v", busy)
	}
	revision := after.Header.Revision
	hash := s.hash(revision)
	if _, err := s.Terminate(); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(); err != nil {
		t.Fatal(err)
	}
	s.dial()
	if again := s.hash(revision); again != hash {
		t.Errorf("after a restart the hash at %d is %d, it was %d", revision, again, hash)
	}
}

// latencies of one kind of load.
type latencies struct {
	puts, gets         int64
	worstPut, worstGet time.Duration
}

func (l latencies) String() string {
	return fmt.Sprintf("%d puts, worst %s; %d gets, worst %s", l.puts, l.worstPut.Round(100*time.Microsecond), l.gets, l.worstGet.Round(100*time.Microsecond))
}

// load puts and reads one at a time while `work` runs.
func (s *server) load(work func()) latencies {
	var l latencies
	var stop atomic.Bool
	var done sync.WaitGroup
	each := func(count *int64, worst *time.Duration, call func(n int64) error) {
		done.Add(1)
		go func() {
			defer done.Done()
			for !stop.Load() {
				began := time.Now()
				if err := call(*count); err != nil {
					s.t.Errorf("meanwhile: %v", err)
					return
				}
				*worst = max(*worst, time.Since(began))
				*count++
			}
		}()
	}
	each(&l.puts, &l.worstPut, func(n int64) error {
		_, err := s.kv.Put(s.ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "m%d", n%100), Value: bytes.Repeat([]byte("v"), 100)})
		return err
	})
	each(&l.gets, &l.worstGet, func(n int64) error {
		resp, err := s.kv.Range(s.ctx, &pb.RangeRequest{Key: fmt.Appendf(nil, "k%05d", n*7%int64(s.keys))})
		if err == nil && len(resp.Kvs) != 1 {
			err = fmt.Errorf("key %d is gone", n*7%int64(s.keys))
		}
		return err
	})
	work()
	stop.Store(true)
	done.Wait()
	return l
}

// TestDefragmentKilled: kill -9 at random moments of a defragmentation leaves
// every acknowledged put, one store, and nothing else.
func TestDefragmentKilled(t *testing.T) {
	harness.NeedOwnSubject(t)
	s := start(t, harness.Options{})
	rounds := harness.IntEnv(t, "DEFRAGMENT_KILLS", 5)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	chance := rand.New(rand.NewPCG(seed, 0))
	revision := s.status().Header.Revision
	hash := s.hash(revision)
	for round := range rounds {
		ended := s.defragment()
		s.awaitInflight(ended)
		put, err := s.kv.Put(s.ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "round%d", round), Value: []byte("v")})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(chance.IntN(60)) * time.Millisecond) // the moment is what is being varied
		s.Kill()
		<-ended
		if err := s.Run(); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		s.dial()
		found, err := s.kv.Range(s.ctx, &pb.RangeRequest{Key: fmt.Appendf(nil, "round%d", round)})
		if err != nil || len(found.Kvs) != 1 || found.Kvs[0].ModRevision != put.Header.Revision {
			t.Fatalf("round %d: the acknowledged put at %d: %v %v", round, put.Header.Revision, found, err)
		}
		if again := s.hash(revision); again != hash {
			t.Fatalf("round %d: the hash at %d is %d, it was %d", round, revision, again, hash)
		}
		s.oneStore()
	}
	if err := <-s.defragment(); err != nil {
		t.Fatal(err)
	}
	if again := s.hash(revision); again != hash {
		t.Errorf("the hash at %d is %d, it was %d", revision, again, hash)
	}
}

// engines are the directories of engines, the one in use and the one being made.
func (s *server) engines() []string {
	s.t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.Dir, "member", "store"))
	if err != nil {
		s.t.Fatal(err)
	}
	var engines []string
	for _, e := range entries {
		if e.IsDir() {
			engines = append(engines, e.Name())
		}
	}
	return engines
}

// oneStore fails if more than one engine's directory is left.
func (s *server) oneStore() {
	s.t.Helper()
	engines := s.engines()
	if len(engines) != 1 {
		s.t.Errorf("there are %d engines: %v", len(engines), engines)
	}
}

// TestDefragmentStopped: a server that is told to stop does not first finish.
func TestDefragmentStopped(t *testing.T) {
	harness.NeedOwnSubject(t)
	s := start(t, harness.Options{})
	revision := s.status().Header.Revision
	hash := s.hash(revision)
	ended := s.defragment()
	s.awaitInflight(ended)
	began := time.Now()
	code, err := s.Terminate()
	t.Logf("it stopped after %s with %d; the call ended with: %v", time.Since(began).Round(time.Millisecond), code, <-ended)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(); err != nil {
		t.Fatal(err)
	}
	s.dial()
	s.oneStore()
	if again := s.hash(revision); again != hash {
		t.Errorf("the hash at %d is %d, it was %d", revision, again, hash)
	}
}
