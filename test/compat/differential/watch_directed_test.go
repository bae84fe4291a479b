package differential

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"milepost.dev/test/compat/differ"
)

func progressReplies(log []*pb.WatchResponse) int {
	return differ.Count(log, func(r *pb.WatchResponse) bool { return r.WatchId == -1 && !r.Created })
}

func createdReplies(log []*pb.WatchResponse) int {
	return differ.Count(log, func(r *pb.WatchResponse) bool { return r.Created })
}

func createAnd(w *differ.WatchPair, req *pb.WatchCreateRequest) {
	log, _ := w.Ref.Replies()
	n := createdReplies(log) + 1
	w.Send("watch create", createRequest(req))
	w.Await("created reply to "+differ.Show(req), func(log []*pb.WatchResponse) bool { return createdReplies(log) >= n })
}

// TestWatchIDs: automatic ids skip those in use and are not given again, chosen
// ids may be anything that is free, also one that has been used before.
func TestWatchIDs(t *testing.T) {
	pair := startPair(t)
	w := pair.OpenWatch("watch ids", nil)
	key := []byte("k")
	for _, id := range []int64{0, 0, 2, 3, 0, -7, 1 << 60, 5, 0, 0, 5, -7} {
		createAnd(w, &pb.WatchCreateRequest{Key: key, WatchId: id})
	}
	for _, id := range []int64{1, 1, 2, -7} {
		w.Send("watch cancel", cancelRequest(id))
	}
	for _, id := range []int64{1, -7, 2, 2, 0} { // free again
		createAnd(w, &pb.WatchCreateRequest{Key: key, WatchId: id})
	}
	put(pair, "k", "v")
	w.Progress(2)
	w.CompareNew(false)
}

// TestWatchProgressRules: when a stream answers the question for its progress.
func TestWatchProgressRules(t *testing.T) {
	pair := startPair(t)
	put(pair, "a", "1")
	put(pair, "b", "1")
	// A stream without watchers says nothing, one with a watcher of the future
	// neither; a cancelled one no longer counts.
	w := pair.OpenWatch("watch progress", nil)
	w.Send("watch progress", progressRequest())
	createAnd(w, &pb.WatchCreateRequest{Key: []byte("a"), StartRevision: 50})
	w.Send("watch progress", progressRequest())
	createAnd(w, &pb.WatchCreateRequest{Key: []byte("a")})
	w.Send("watch progress", progressRequest())
	w.Send("watch cancel", cancelRequest(0))
	w.Await("watcher 0 is canceled", func(log []*pb.WatchResponse) bool { return differ.Canceled(log, 0) })
	if log, _ := w.Ref.Replies(); progressReplies(log) != 0 {
		t.Error("the reference answers before all its watchers are in the present")
	}
	w.Send("watch progress", progressRequest())
	w.Await("the first progress reply", func(log []*pb.WatchResponse) bool { return progressReplies(log) == 1 })
	w.CompareNew(true)
	// Each question then has one answer, after the events it covers.
	for i := range 5 {
		put(pair, "a", fmt.Sprint(i))
		w.Send("watch progress", progressRequest())
		w.Await("a progress reply", func(log []*pb.WatchResponse) bool { return progressReplies(log) == i+2 })
		for _, side := range []*differ.WatchStream{w.Ref, w.Sub} {
			log, _ := side.Replies()
			if n := differ.EventsOf(log, 1); n != i+1 {
				t.Errorf("%s: %d of %d events had come before the progress reply", side.Side.Server.Binary.Name, n, i+1)
			}
		}
	}
	w.CompareNew(true)
}

// TestWatchHistory: 3,000 revisions at once, with and without earlier values,
// after a compaction in the middle, and while new ones are written.
func TestWatchHistory(t *testing.T) {
	pair := startPair(t)
	const puts = 3000
	for i := range puts {
		put(pair, fmt.Sprintf("h%d", i%7), fmt.Sprint(i))
	}
	pair.Invoke("compact", method("KV", "Compact"), &pb.CompactionRequest{Revision: 500, Physical: true}, into[pb.CompactionResponse]())
	w := pair.OpenWatch("watch history", nil)
	for _, req := range []*pb.WatchCreateRequest{
		{Key: []byte("h"), RangeEnd: []byte("i"), StartRevision: 500, PrevKv: true},
		{Key: []byte("h3"), StartRevision: 500},
		{Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: 501, Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NODELETE}},
		{Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: 501, Filters: []pb.WatchCreateRequest_FilterType{pb.WatchCreateRequest_NOPUT}},
		{Key: []byte("h1"), RangeEnd: []byte("h2"), StartRevision: 2990, PrevKv: true, Fragment: true},
	} {
		createAnd(w, req)
	}
	for i := range 50 {
		put(pair, fmt.Sprintf("h%d", i%7), fmt.Sprint(i))
	}
	w.Progress(puts + 51)
	w.CompareNew(false)
	log, _ := w.Ref.Replies()
	if n := differ.EventsOf(log, 0); n != puts+51-500+1 {
		t.Errorf("the reference told %d events of the whole history", n)
	}
}

// TestWatchCompacted: a watcher below the compacted revision is told so; one
// that starts there is not; one that has caught up does not care.
func TestWatchCompacted(t *testing.T) {
	pair := startPair(t)
	for i := range 20 {
		put(pair, "k", fmt.Sprint(i))
	}
	live := pair.OpenWatch("watch live", nil)
	createAnd(live, &pb.WatchCreateRequest{Key: []byte("k"), StartRevision: 2, PrevKv: true})
	live.Progress(21)
	pair.Invoke("compact", method("KV", "Compact"), &pb.CompactionRequest{Revision: 15, Physical: true}, into[pb.CompactionResponse]())
	w := pair.OpenWatch("watch compacted", nil)
	for _, start := range []int64{1, 14, 15, 16, 21, 22} {
		createAnd(w, &pb.WatchCreateRequest{Key: []byte("k"), StartRevision: start, PrevKv: true})
	}
	put(pair, "k", "last")
	for id, events := range []int{0, 0, 8, 7, 2, 1} {
		w.Await(fmt.Sprintf("watcher %d is served or canceled", id), func(log []*pb.WatchResponse) bool {
			return events > 0 && differ.EventsOf(log, int64(id)) >= events || events == 0 && differ.Canceled(log, int64(id))
		})
	}
	w.CompareNew(false)
	live.Progress(22)
	live.CompareNew(false)
}

// TestWatchFragments: one revision that is too large for a message is cut for
// those who ask, exactly as etcd cuts it, and for nobody else. A history that
// is too large is cut too, but there a server may also send less at a time.
func TestWatchFragments(t *testing.T) {
	const keys, size = 12, 600 << 10
	const limit = 1_572_864 + 512<<10 // from here on a reply is cut
	pair := startPair(t)
	value := string(bytes.Repeat([]byte{'f'}, size))
	for i := range keys {
		put(pair, fmt.Sprintf("f%02d", i), value)
	}
	type watch struct {
		pair             *differ.WatchPair
		fragment, prevKV bool
	}
	var all []watch
	for _, fragment := range []bool{true, false} {
		for _, prevKV := range []bool{true, false} {
			one := watch{pair.OpenWatch("watch fragments", nil), fragment, prevKV}
			createAnd(one.pair, &pb.WatchCreateRequest{
				Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: 2, Fragment: fragment, PrevKv: prevKV,
			})
			one.pair.Progress(keys + 1)
			one.pair.CompareNew(false)
			all = append(all, one)
		}
	}
	pair.Invoke("delete", method("KV", "DeleteRange"), &pb.DeleteRangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}, into[pb.DeleteRangeResponse]())
	for _, one := range all {
		one.pair.Progress(keys + 2)
		one.pair.CompareNew(false)
		var cuts [2][]int
		for i, stream := range []*differ.WatchStream{one.pair.Ref, one.pair.Sub} {
			log, _ := stream.Replies()
			for _, r := range log {
				if one.fragment && len(r.Events) > 1 && proto.Size(r) > limit+size {
					t.Errorf("%s sends %d bytes to one who asked for fragments", stream.Side.Server.Binary.Name, proto.Size(r))
				}
				if len(r.Events) > 0 && r.Events[0].Kv.ModRevision == keys+2 {
					cuts[i] = append(cuts[i], len(r.Events))
				}
			}
		}
		if !slices.Equal(cuts[0], cuts[1]) {
			t.Errorf("fragment %v, prev_kv %v: the events of one revision come as %v from the reference, as %v from the subject",
				one.fragment, one.prevKV, cuts[0], cuts[1])
		}
		if mustCut := one.fragment && one.prevKV; mustCut != (len(cuts[0]) > 1) {
			t.Errorf("fragment %v, prev_kv %v: the reference sends %v", one.fragment, one.prevKV, cuts[0])
		}
	}
}

// TestWatchHalfClosed: a client that has closed its sending side goes on
// receiving.
func TestWatchHalfClosed(t *testing.T) {
	pair := startPair(t)
	w := pair.OpenWatch("watch half-closed", nil)
	createAnd(w, &pb.WatchCreateRequest{Key: []byte("k")})
	for _, side := range []*differ.WatchStream{w.Ref, w.Sub} {
		if err := side.CloseSend(); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 10 {
		put(pair, "k", fmt.Sprint(i))
	}
	w.Await("ten events", func(log []*pb.WatchResponse) bool { return differ.EventsOf(log, 0) == 10 })
	w.CompareNew(true)
}

// TestWatchOddRequests: an empty request and an empty create request.
func TestWatchOddRequests(t *testing.T) {
	pair := startPair(t)
	w := pair.OpenWatch("watch odd", metadata.Pairs("hasleader", "true"))
	w.Send("watch odd", &pb.WatchRequest{})
	createAnd(w, &pb.WatchCreateRequest{})
	put(pair, "\x00", "1")
	put(pair, "k", "1")
	createAnd(w, &pb.WatchCreateRequest{Key: []byte("k"), Filters: []pb.WatchCreateRequest_FilterType{0, 1}})
	createAnd(w, &pb.WatchCreateRequest{Key: []byte("k"), Filters: []pb.WatchCreateRequest_FilterType{99}})
	put(pair, "k", "2")
	pair.Invoke("delete", method("KV", "DeleteRange"), &pb.DeleteRangeRequest{Key: []byte("k")}, into[pb.DeleteRangeResponse]())
	w.Progress(5)
	w.CompareNew(false)
}

// TestWatchOrderInTxn: the events of one transaction come together, in order.
func TestWatchOrderInTxn(t *testing.T) {
	pair := startPair(t)
	w := pair.OpenWatch("watch txn", nil)
	createAnd(w, &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, PrevKv: true})
	op := func(key string) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: []byte("v")}}}
	}
	del := func(key, end string) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{
			RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end)},
		}}
	}
	nest := func(ops ...*pb.RequestOp) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Success: ops}}}
	}
	for _, req := range []*pb.TxnRequest{
		{Success: []*pb.RequestOp{op("z"), op("a"), nest(op("m"), op("b")), op("c")}},
		{Success: []*pb.RequestOp{del("a", "d"), op("x"), del("z", ""), op("e")}},
		{Success: []*pb.RequestOp{nest(op("p1")), nest(del("p", "q")), del("e", "")}}, // put, then deleted in the same revision
		{Success: []*pb.RequestOp{del("none", ""), {Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("x")}}}}},
	} {
		pair.Invoke("txn", method("KV", "Txn"), req, into[pb.TxnResponse]())
	}
	old := pair.OpenWatch("watch txn", nil)
	createAnd(old, &pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, PrevKv: true, StartRevision: 1})
	w.Progress(4)
	w.CompareNew(false)
	old.Progress(4)
	old.CompareNew(false)
	pair.Invoke("hash kv", method("Maintenance", "HashKV"), &pb.HashKVRequest{}, into[pb.HashKVResponse]())
}
