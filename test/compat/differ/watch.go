package differ

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// watchWithin bounds every wait for a watch reply.
const watchWithin = 20 * time.Second

// WatchStream is one server's Watch stream: a reader collects every reply, and
// tests wait on what has been collected.
type WatchStream struct {
	Side *Side

	stream pb.Watch_WatchClient
	cancel context.CancelFunc

	mu      sync.Mutex
	log     []*pb.WatchResponse
	err     error
	changed chan struct{}
}

// OpenWatchStream opens a stream on one side. md is sent as request metadata.
func OpenWatchStream(side *Side, md metadata.MD) (*WatchStream, error) {
	ctx, cancel := context.WithCancel(metadata.NewOutgoingContext(context.Background(), md))
	stream, err := pb.NewWatchClient(side.Conn).Watch(ctx)
	if err != nil {
		cancel()
		return nil, err
	}
	w := &WatchStream{Side: side, stream: stream, cancel: cancel, changed: make(chan struct{})}
	go w.read()
	return w, nil
}

func (w *WatchStream) read() {
	for {
		resp, err := w.stream.Recv()
		w.mu.Lock()
		if err == nil {
			w.log = append(w.log, resp)
		} else {
			w.err = err
		}
		close(w.changed)
		w.changed = make(chan struct{})
		w.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Send sends one request.
func (w *WatchStream) Send(req *pb.WatchRequest) error { return w.stream.Send(req) }

// CloseSend half-closes the stream.
func (w *WatchStream) CloseSend() error { return w.stream.CloseSend() }

// Close ends the stream.
func (w *WatchStream) Close() { w.cancel() }

// Replies returns what has come so far, and the stream's error once it ended.
func (w *WatchStream) Replies() ([]*pb.WatchResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log, w.err
}

// Await returns once `enough` holds for the replies so far. It fails when the
// stream ends first or the replies do not come in time.
func (w *WatchStream) Await(enough func([]*pb.WatchResponse) bool) error {
	return w.AwaitFor(watchWithin, enough)
}

// AwaitFor is Await with another bound.
func (w *WatchStream) AwaitFor(within time.Duration, enough func([]*pb.WatchResponse) bool) error {
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	for {
		w.mu.Lock()
		ok, err, changed := enough(w.log), w.err, w.changed
		w.mu.Unlock()
		if ok {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the stream ended: %w", err)
		}
		select {
		case <-changed:
		case <-deadline.C:
			return errors.New("no such reply in time")
		}
	}
}

// End waits for the end of the stream and returns its status.
func (w *WatchStream) End() *status.Status {
	if err := w.Await(func([]*pb.WatchResponse) bool { return false }); err != nil {
		if _, ended := w.Replies(); ended != nil {
			return status.Convert(ended)
		}
	}
	return status.New(codes.OK, "the stream did not end")
}

// Progress asks for a progress reply until one tells a revision of at least
// rev: then every event up to rev has arrived. etcd answers only while all
// watchers of the stream are synced, so the question is repeated.
func (w *WatchStream) Progress(rev int64) error {
	deadline := time.Now().Add(watchWithin)
	for {
		if err := w.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{
			ProgressRequest: &pb.WatchProgressRequest{},
		}}); err != nil {
			return err
		}
		err := w.AwaitFor(200*time.Millisecond, func(log []*pb.WatchResponse) bool {
			for i := len(log) - 1; i >= 0; i-- {
				if log[i].WatchId == -1 && !log[i].Canceled && log[i].Header.Revision >= rev {
					return true
				}
			}
			return false
		})
		if err == nil {
			return nil
		}
		if _, ended := w.Replies(); ended != nil || time.Now().After(deadline) {
			return fmt.Errorf("no progress to revision %d: %w", rev, err)
		}
	}
}

// Count counts the replies that satisfy a condition.
func Count(log []*pb.WatchResponse, is func(*pb.WatchResponse) bool) int {
	n := 0
	for _, r := range log {
		if is(r) {
			n++
		}
	}
	return n
}

// sinceCreated is the part of a log that belongs to the last watcher that was
// given this id. Ids are used again, at a client's own choice.
func sinceCreated(log []*pb.WatchResponse, id int64) []*pb.WatchResponse {
	for i := len(log) - 1; i >= 0; i-- {
		if log[i].WatchId == id && log[i].Created {
			return log[i:]
		}
	}
	return nil
}

// EventsOf counts the events the last watcher of this id has received.
func EventsOf(log []*pb.WatchResponse, id int64) int {
	n := 0
	for _, r := range sinceCreated(log, id) {
		if r.WatchId == id {
			n += len(r.Events)
		}
	}
	return n
}

// Canceled tells whether the last watcher of this id has been canceled.
func Canceled(log []*pb.WatchResponse, id int64) bool {
	return Count(sinceCreated(log, id), func(r *pb.WatchResponse) bool { return r.WatchId == id && r.Canceled }) > 0
}

// WatchPair is a Watch stream on each side, driven in step.
type WatchPair struct {
	p        *Pair
	kind     string
	Ref, Sub *WatchStream
	// refSeen and subSeen are how many replies of each watcher have been
	// compared, so that one difference does not put all later ones out of step.
	refSeen, subSeen map[int64]int
	// sameFrames and otherFrames count the compared groups of event replies by
	// whether both sides cut them into replies alike.
	sameFrames, otherFrames int
}

// OpenWatch opens a stream on both sides; differences are recorded as `kind`.
func (p *Pair) OpenWatch(kind string, md metadata.MD) *WatchPair {
	p.t.Helper()
	type opened struct {
		w   *WatchStream
		err error
	}
	ref, sub := Both(p, func(side *Side) opened {
		w, err := OpenWatchStream(side, md)
		return opened{w, err}
	})
	if ref.err != nil || sub.err != nil {
		p.t.Fatalf("opening watch streams: reference %v, subject %v", ref.err, sub.err)
	}
	p.t.Cleanup(ref.w.Close)
	p.t.Cleanup(sub.w.Close)
	return &WatchPair{p: p, kind: kind, Ref: ref.w, Sub: sub.w, refSeen: map[int64]int{}, subSeen: map[int64]int{}}
}

// Send sends a request on both sides and counts it under the given kind.
func (w *WatchPair) Send(kind string, req *pb.WatchRequest) {
	w.p.t.Helper()
	w.p.Table.Count(kind, codes.OK)
	if err := w.Ref.Send(req); err != nil {
		w.p.t.Fatalf("reference: sending a watch request: %v", err)
	}
	if err := w.Sub.Send(req); err != nil {
		w.p.Finding(w.kind, Show(req), "request taken", fmt.Sprintf("stream broken: %v", err))
		w.p.t.FailNow()
	}
}

// Await waits on both sides until `enough` holds. A reference that does not
// answer is a fault of the suite, a subject that does not is a finding.
func (w *WatchPair) Await(what string, enough func([]*pb.WatchResponse) bool) bool {
	w.p.t.Helper()
	ref, sub := Both(w.p, func(side *Side) error {
		if side == w.p.Ref {
			return w.Ref.Await(enough)
		}
		return w.Sub.Await(enough)
	})
	if ref != nil {
		w.p.t.Fatalf("reference: %s: %v", what, ref)
	}
	if sub != nil {
		log, _ := w.Sub.Replies()
		last := "(no reply at all)"
		if len(log) > 0 {
			last = Show(log[len(log)-1])
		}
		w.p.Finding(w.kind, what, "arrived", fmt.Sprintf("%v; last reply: %s", sub, last))
		return false
	}
	return true
}

// Progress is WatchStream.Progress on both sides.
func (w *WatchPair) Progress(rev int64) {
	w.p.t.Helper()
	ref, sub := Both(w.p, func(side *Side) error {
		if side == w.p.Ref {
			return w.Ref.Progress(rev)
		}
		return w.Sub.Progress(rev)
	})
	if ref != nil {
		w.p.t.Fatalf("reference: %v", ref)
	}
	if sub != nil {
		w.p.Finding(w.kind, fmt.Sprintf("progress to revision %d", rev), "arrived", sub.Error())
		w.p.t.FailNow()
	}
}

// CompareNew compares, watcher by watcher, the replies since the last call.
// Replies without events are compared one by one, and the events between them
// as one sequence. How replies of different watchers interleave is not
// defined. Replies without a watcher (id -1) are a sequence of their own;
// progress replies among them are compared only if asked.
//
// How events are cut into replies depends on whether the watcher was still
// catching up at that moment, which a busy machine may change. So each side is
// held to the rules of framing by itself (frames.go), and how often the two
// agree is counted: see Frames.
func (w *WatchPair) CompareNew(withProgress bool) {
	w.p.t.Helper()
	ref, sub := byWatcher(w.Ref, withProgress), byWatcher(w.Sub, withProgress)
	ids := map[int64]bool{}
	for id := range ref {
		ids[id] = true
	}
	for id := range sub {
		ids[id] = true
	}
	sorted := make([]int64, 0, len(ids))
	for id := range ids {
		sorted = append(sorted, id)
	}
	sort.Slice(sorted, func(i, j int) bool { return sorted[i] < sorted[j] })
	for _, id := range sorted {
		question := fmt.Sprintf("replies to watcher %d from number %d", id, w.refSeen[id])
		newRef, newSub := ref[id][w.refSeen[id]:], sub[id][w.subSeen[id]:]
		w.p.Compare(w.kind, question, joined(newRef), joined(newSub))
		if len(newRef)+len(newSub) > 0 {
			if sameAnswer(w.p.Ref.masked(framed(newRef)), w.p.Sub.masked(framed(newSub))) {
				w.sameFrames++
			} else {
				w.otherFrames++
			}
		}
		if fault := FrameFault(newSub); fault != "" {
			w.p.Finding(w.kind, question, "each reply follows the rules", fault)
		}
		w.refSeen[id], w.subSeen[id] = len(ref[id]), len(sub[id])
	}
}

// Frames tells how many compared groups of replies were cut alike on both
// sides, and how many were not.
func (w *WatchPair) Frames() (same, other int) { return w.sameFrames, w.otherFrames }

func byWatcher(w *WatchStream, withProgress bool) map[int64][]*pb.WatchResponse {
	log, _ := w.Replies()
	out := map[int64][]*pb.WatchResponse{}
	for _, r := range log {
		if r.WatchId == -1 && !r.Created && !withProgress {
			continue
		}
		out[r.WatchId] = append(out[r.WatchId], r)
	}
	return out
}
