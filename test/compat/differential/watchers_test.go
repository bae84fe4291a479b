package differential

import (
	"bytes"
	"fmt"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"milepost.dev/test/compat/differ"
)

// maxWatchers bounds the watchers that are open at a time.
const maxWatchers = 24

// watchers is the watch side of the generated run: two streams that are asked
// at random, and beside them a stream with a single watcher over the whole
// history. From that history follows what every other watcher must have
// received, so that the suite knows what to wait for instead of guessing.
//
// Watchers that start in the future, or below the compacted revision, live on
// streams of their own: as long as etcd has one of them on a stream (it keeps
// one that compaction has canceled), that stream gives no progress replies,
// and these tell when the others have caught up.
type watchers struct {
	g       *generator
	history *differ.WatchPair
	// present, ahead and behind hold the watchers by where they start.
	present, ahead, behind *differ.WatchPair
	open                   []*watcher
	created                map[*differ.WatchPair]int
}

// watcher is one watcher and the request that made it.
type watcher struct {
	stream *differ.WatchPair
	id     int64
	req    *pb.WatchCreateRequest
	from   int64 // first revision it may see
}

func newWatchers(g *generator) *watchers { return newWatchersFrom(g, 1) }

// newWatchersFrom is for a store whose history begins later.
func newWatchersFrom(g *generator, start int64) *watchers {
	w := &watchers{g: g, created: map[*differ.WatchPair]int{}}
	w.history = g.pair.OpenWatch("watch history", nil)
	w.history.Send("watch history", createRequest(&pb.WatchCreateRequest{
		Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: start, PrevKv: true,
	}))
	// Only a watcher that has caught up gets each revision in a reply of its own.
	w.history.Progress(g.revision)
	w.present = g.pair.OpenWatch("watch events", nil)
	w.ahead = g.pair.OpenWatch("watch events ahead", nil)
	w.behind = g.pair.OpenWatch("watch events behind", nil)
	return w
}

func createRequest(req *pb.WatchCreateRequest) *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: req}}
}

func cancelRequest(id int64) *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}}
}

func progressRequest() *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}
}

// wants tells whether an event is one this watcher must see.
func (w *watcher) wants(ev *mvccpb.Event) bool {
	if ev.Kv.ModRevision < w.from {
		return false
	}
	for _, f := range w.req.Filters {
		if f == pb.WatchCreateRequest_NOPUT && ev.Type == mvccpb.Event_PUT ||
			f == pb.WatchCreateRequest_NODELETE && ev.Type == mvccpb.Event_DELETE {
			return false
		}
	}
	key, end := w.req.Key, w.req.RangeEnd
	if len(key) == 0 {
		key = []byte{0}
	}
	switch {
	case len(end) == 0:
		return bytes.Equal(ev.Kv.Key, key)
	case bytes.Equal(end, []byte{0}):
		return bytes.Compare(ev.Kv.Key, key) >= 0
	default:
		return bytes.Compare(ev.Kv.Key, key) >= 0 && bytes.Compare(ev.Kv.Key, end) < 0
	}
}

// settle waits until every event so far has arrived everywhere, then compares
// all that has come in since the last time.
func (w *watchers) settle() {
	w.history.Progress(w.g.revision)
	w.history.CompareNew(false)
	log, _ := w.history.Ref.Replies()
	expected := map[*watcher]int{}
	for _, resp := range log {
		for _, ev := range resp.Events {
			for _, one := range w.open {
				if one.wants(ev) {
					expected[one]++
				}
			}
		}
	}
	for _, one := range w.open {
		one.stream.Await(
			fmt.Sprintf("%d events of watcher %d (%s)", expected[one], one.id, differ.Show(one.req)),
			func(log []*pb.WatchResponse) bool { return differ.EventsOf(log, one.id) >= expected[one] })
	}
	w.present.CompareNew(false)
	w.ahead.CompareNew(false)
	w.behind.CompareNew(false)
}

func askWatchCreate(g *generator, name string) {
	w := g.watch
	if len(w.open) >= maxWatchers {
		askWatchCancel(g, "watch cancel")
	}
	req := &pb.WatchCreateRequest{PrevKv: chance(g.Rand, 40), Fragment: chance(g.Rand, 20), ProgressNotify: chance(g.Rand, 20)}
	req.Key, req.RangeEnd = g.keys.interval(g.Rand)
	if chance(g.Rand, 50) {
		req.RangeEnd = prefixEnd(req.Key)
	}
	switch g.IntN(10) {
	case 0, 1, 2: // into the past
		floor := max(g.compacted, 1)
		req.StartRevision = floor + g.Int64N(g.revision-floor+1)
	case 3:
		req.StartRevision = g.revision + 1 + g.Int64N(20)
	case 4:
		req.StartRevision = 1 + g.Int64N(max(g.compacted, 1)) // often compacted
	}
	if chance(g.Rand, 15) {
		req.Filters = append(req.Filters, pb.WatchCreateRequest_FilterType(g.IntN(2)))
	}
	if chance(g.Rand, 25) {
		// just ahead of the automatic ids, far away, or negative
		n := int64(g.watch.created[g.watch.present])
		req.WatchId = pick(g.Rand, []int64{n/2 + 1, n/2 + 2, 1<<40 + n, -10 - n})
	}
	if chance(g.Rand, 4) {
		req.Key = nil
	}
	w.create(name, req)
}

func askWatchInvalid(g *generator, name string) {
	req := &pb.WatchCreateRequest{Key: []byte("q")}
	switch g.IntN(4) {
	case 0:
		req.StartRevision = -1 - g.Int64N(5)
	case 1:
		req.RangeEnd = []byte("a")
	case 2:
		req.RangeEnd = req.Key
	case 3:
		if len(g.watch.open) > 0 {
			req.WatchId = pick(g.Rand, g.watch.open).id
		}
	}
	g.watch.create(name, req)
}

// create asks for a watcher, waits for the reply, and takes note of what it
// will see. A refused one is no longer spoken of.
func (w *watchers) create(name string, req *pb.WatchCreateRequest) {
	w.settle()
	stream := w.present
	switch {
	case req.StartRevision > w.g.revision:
		stream = w.ahead
	case req.StartRevision > 0 && req.StartRevision < w.g.compacted:
		stream = w.behind
	}
	w.created[stream]++
	n := w.created[stream]
	stream.Send(name, createRequest(req))
	isCreated := func(r *pb.WatchResponse) bool { return r.Created }
	stream.Await("a created reply to "+differ.Show(req), func(log []*pb.WatchResponse) bool {
		return differ.Count(log, isCreated) >= n
	})
	log, _ := stream.Ref.Replies()
	reply := nth(log, n, isCreated)
	one := &watcher{stream: stream, id: reply.WatchId, req: req, from: req.StartRevision}
	if req.StartRevision == 0 {
		one.from = w.g.revision + 1
	}
	switch {
	case reply.Canceled:
	case stream == w.behind:
		stream.Await(fmt.Sprintf("watcher %d from the compacted revision %d is canceled", one.id, req.StartRevision),
			func(log []*pb.WatchResponse) bool { return differ.Canceled(log, one.id) })
	default:
		w.open = append(w.open, one)
		if stream == w.present {
			// It has caught up once the stream answers for its progress: from
			// here on both sides have it among the live ones.
			stream.Progress(w.g.revision)
		}
	}
	w.settle()
}

// nth returns the n-th reply, counted from 1, that satisfies a condition.
func nth(log []*pb.WatchResponse, n int, is func(*pb.WatchResponse) bool) *pb.WatchResponse {
	for _, r := range log {
		if is(r) {
			if n--; n == 0 {
				return r
			}
		}
	}
	return nil
}

func askWatchCancel(g *generator, name string) {
	w := g.watch
	w.settle()
	if len(w.open) == 0 || chance(g.Rand, 10) {
		w.present.Send(name, cancelRequest(555_555)) // nobody: silence
		return
	}
	i := g.IntN(len(w.open))
	one := w.open[i]
	w.open = slices.Delete(w.open, i, i+1)
	one.stream.Send(name, cancelRequest(one.id))
	one.stream.Await(fmt.Sprintf("watcher %d is canceled", one.id),
		func(log []*pb.WatchResponse) bool { return differ.Canceled(log, one.id) })
	one.stream.CompareNew(false)
}

// askWatchProgress only sends: whether a reply comes depends on all watchers
// of the stream. Its rules have a test of their own.
func askWatchProgress(g *generator, name string) {
	pick(g.Rand, []*differ.WatchPair{g.watch.present, g.watch.ahead, g.watch.behind}).Send(name, progressRequest())
}
