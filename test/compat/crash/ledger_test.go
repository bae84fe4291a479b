package crash

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"milepost.dev/test/compat/differ"
	"milepost.dev/test/compat/harness"
)

const (
	longLease  = 7001
	shortLease = 7002
)

// oneWrite is one transaction: it puts a key that nobody else ever puts,
// sometimes deletes an older one, and puts the writer's marker. All of it must
// be there, or nothing.
type oneWrite struct {
	key, value, marker, removed string
	lease                       int64
}

func (w oneWrite) request() *pb.TxnRequest {
	put := func(key, value string) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{
			RequestPut: &pb.PutRequest{Key: []byte(key), Value: []byte(value), Lease: w.lease},
		}}
	}
	req := &pb.TxnRequest{Success: []*pb.RequestOp{put(w.key, w.value)}}
	if w.removed != "" {
		req.Success = append(req.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{
			RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(w.removed)},
		}})
	}
	if w.marker != "" {
		req.Success = append(req.Success, put(w.marker, w.key))
	}
	return req
}

// ledger is what the writers know, and what has been verified of it.
type ledger struct {
	mu           sync.Mutex
	counters     [writers]int
	tried        map[string]oneWrite // by key, also those of unknown outcome
	acknowledged map[int64]oneWrite  // by revision
	unknown      int
	unknownThere int

	// revision is verified: up to it the history has no gap, and leads to state.
	revision int64
	state    map[string]*mvccpb.KeyValue
}

func newLedger() *ledger {
	return &ledger{
		tried: map[string]oneWrite{}, acknowledged: map[int64]oneWrite{},
		revision: 1, state: map[string]*mvccpb.KeyValue{},
	}
}

// next is the writer's next write. Values have all sizes up to a page of the
// log, and now and then many. Older keys are removed, so that two hundred rounds
// can each compare all that is there.
func (l *ledger) next(writer int, random *rand.Rand) oneWrite {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.counters[writer]
	l.counters[writer]++
	size := random.IntN(4000)
	if random.IntN(200) == 0 {
		size = 200_000
	}
	w := oneWrite{
		key:    fmt.Sprintf("w%d/%08d", writer, n),
		value:  fmt.Sprintf("%d-%d-%s", writer, n, bytes.Repeat([]byte{byte('a' + n%26)}, size)),
		marker: fmt.Sprintf("w%d/marker", writer),
	}
	if keep := 20; n >= keep {
		w.removed = fmt.Sprintf("w%d/%08d", writer, n-keep)
	}
	l.tried[w.key] = w
	return w
}

// fixed is a write of the test itself.
func (l *ledger) fixed(key, value string, lease int64) oneWrite {
	l.mu.Lock()
	defer l.mu.Unlock()
	w := oneWrite{key: key, value: value, lease: lease}
	l.tried[key] = w
	return w
}

func (l *ledger) acknowledge(w oneWrite, revision int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acknowledged[revision] = w
}

func (l *ledger) leaveOpen(oneWrite) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unknown++
}

// check holds the server's history since the last check, and its present
// state, against the ledger.
func (l *ledger) check(t *testing.T, server *harness.Server) {
	t.Helper()
	conn := server.Conn(t)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	present, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	if err != nil {
		t.Fatal(err)
	}
	now := present.Header.Revision
	for revision := range l.acknowledged {
		if revision > now {
			t.Errorf("acknowledged at revision %d, but the server is at %d", revision, now)
		}
	}
	for revision, events := range l.history(t, server, l.revision+1, now) {
		l.apply(t, l.revision+1+int64(revision), events)
	}
	l.revision = now
	if len(present.Kvs) != len(l.state) {
		t.Errorf("%d keys are there, the history leads to %d", len(present.Kvs), len(l.state))
	}
	for _, kv := range present.Kvs {
		want := l.state[string(kv.Key)]
		if want == nil || !bytes.Equal(kv.Value, want.Value) || kv.ModRevision != want.ModRevision ||
			kv.CreateRevision != want.CreateRevision || kv.Version != want.Version || kv.Lease != want.Lease {
			t.Errorf("key %q is not what its history says: mod %d create %d version %d", kv.Key, kv.ModRevision, kv.CreateRevision, kv.Version)
		}
	}
}

// checkFromTheStart reads the whole history once more, from the first
// revision on.
func (l *ledger) checkFromTheStart(t *testing.T, server *harness.Server) {
	t.Helper()
	l.revision, l.state, l.unknownThere = 1, map[string]*mvccpb.KeyValue{}, 0
	l.check(t, server)
}

// history watches from one revision to another and returns the events of each,
// in order. A missing revision is a failure: every one of them changed a key.
func (l *ledger) history(t *testing.T, server *harness.Server, from, to int64) [][]*mvccpb.Event {
	t.Helper()
	if from > to {
		return nil
	}
	side := &differ.Side{Server: server, Conn: server.Conn(t)}
	stream, err := differ.OpenWatchStream(side, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{
		CreateRequest: &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: from},
	}}); err != nil {
		t.Fatal(err)
	}
	if err := stream.Progress(to); err != nil {
		t.Fatalf("watching from revision %d: %v", from, err)
	}
	byRevision := make([][]*mvccpb.Event, to-from+1)
	log, _ := stream.Replies()
	if fault := differ.FrameFault(log); fault != "" {
		t.Error(fault)
	}
	for _, reply := range log {
		if reply.Canceled {
			t.Fatalf("the watch from revision %d was canceled: %v", from, reply)
		}
		for _, ev := range reply.Events {
			if i := ev.Kv.ModRevision - from; i >= 0 && i < int64(len(byRevision)) {
				byRevision[i] = append(byRevision[i], ev)
			}
		}
	}
	for i, events := range byRevision {
		if len(events) == 0 {
			t.Fatalf("the watch from revision %d to %d has a gap at %d", from, to, from+int64(i))
		}
	}
	return byRevision
}

// apply checks one revision: it is exactly one of the writes that were tried,
// whole, and the acknowledged one if there is one. Then it goes into the state.
func (l *ledger) apply(t *testing.T, revision int64, events []*mvccpb.Event) {
	t.Helper()
	first := events[0].Kv
	w, tried := l.tried[string(first.Key)]
	acked, acknowledged := l.acknowledged[revision]
	switch {
	case tried && events[0].Type == mvccpb.Event_DELETE && w.lease == shortLease: // it expired
	case !tried:
		t.Errorf("revision %d puts %q, which nobody wrote", revision, first.Key)
	default:
		l.applyWrite(t, revision, w, events)
		if !acknowledged {
			l.unknownThere++
		}
	}
	if acknowledged && acked.key != string(first.Key) {
		t.Errorf("revision %d was acknowledged for %q, and is %q", revision, acked.key, first.Key)
	}
	for _, ev := range events {
		l.fold(ev)
	}
}

func (l *ledger) applyWrite(t *testing.T, revision int64, w oneWrite, events []*mvccpb.Event) {
	t.Helper()
	want := 1
	if w.marker != "" {
		want++
	}
	if w.removed != "" && l.state[w.removed] != nil {
		want++
	}
	if len(events) != want {
		t.Errorf("revision %d has %d events of a write of %d", revision, len(events), want)
		return
	}
	if string(events[0].Kv.Value) != w.value {
		t.Errorf("revision %d: %q does not have the value that was written", revision, w.key)
	}
	if last := events[len(events)-1].Kv; w.marker != "" && (string(last.Key) != w.marker || string(last.Value) != w.key) {
		t.Errorf("revision %d puts %q, and its marker %q says %q", revision, w.key, last.Key, last.Value)
	}
}

// fold takes one event into the state.
func (l *ledger) fold(ev *mvccpb.Event) {
	if ev.Type == mvccpb.Event_DELETE {
		delete(l.state, string(ev.Kv.Key))
		return
	}
	l.state[string(ev.Kv.Key)] = ev.Kv
}
