package differential

import (
	"context"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"milepost.dev/test/compat/differ"
)

// rangeRequest has every field set now and then. Unknown enum numbers are left
// to the invalid kinds.
func (g *generator) rangeRequest() *pb.RangeRequest {
	key, end := g.keys.interval(g.Rand)
	req := &pb.RangeRequest{Key: key, RangeEnd: end, Revision: g.anyRevision(), Serializable: chance(g.Rand, 30)}
	if chance(g.Rand, 40) {
		req.Limit = g.Int64N(12) - 1
	}
	if chance(g.Rand, 40) {
		req.SortOrder = pb.RangeRequest_SortOrder(g.IntN(3))
		req.SortTarget = pb.RangeRequest_SortTarget(g.IntN(5))
	}
	req.KeysOnly = chance(g.Rand, 15)
	req.CountOnly = chance(g.Rand, 8)
	for _, bound := range []*int64{
		&req.MinModRevision, &req.MaxModRevision, &req.MinCreateRevision, &req.MaxCreateRevision,
	} {
		if chance(g.Rand, 7) {
			*bound = g.Int64N(g.revision + 2)
		}
	}
	return req
}

func askRange(g *generator, name string) {
	req := g.rangeRequest()
	g.pair.InvokeEach(name, method("KV", "Range"),
		func(*differ.Side) proto.Message { return req }, into[pb.RangeResponse](), differ.CanonRange)
}

// askRangeStream compares the chunks put together, and on each side that the
// parts before the last carry key-values alone.
func askRangeStream(g *generator, name string) {
	req := g.rangeRequest()
	if chance(g.Rand, 80) { // mostly what the stream supports
		req.SortOrder, req.SortTarget = pb.RangeRequest_NONE, pb.RangeRequest_KEY
		req.MinModRevision, req.MaxModRevision, req.MinCreateRevision, req.MaxCreateRevision = 0, 0, 0, 0
	}
	if req.SortOrder == pb.RangeRequest_NONE {
		// Another target without an order is taken by etcd, but each part then
		// goes on after the last key of one that was sorted otherwise.
		req.SortTarget = pb.RangeRequest_KEY
	}
	g.pair.Ask(name, method("KV", "RangeStream"), req, func(ctx context.Context, side *differ.Side) differ.Answer {
		stream, err := pb.NewKVClient(side.Conn).RangeStream(ctx, req)
		if err != nil {
			return differ.Answer{Status: status.Convert(err)}
		}
		parts := differ.Stream(stream.Recv)
		if !parts.OK() {
			return parts
		}
		whole := &pb.RangeResponse{}
		for i, part := range parts.Messages {
			chunk := part.(*pb.RangeStreamResponse).RangeResponse
			if i < len(parts.Messages)-1 && (chunk.Header != nil || chunk.More || chunk.Count != 0 || len(chunk.Kvs) == 0) {
				return differ.Answer{Status: status.Newf(codes.Internal, "part %d is not key-values alone: %s", i, differ.Show(part))}
			}
			whole.Kvs = append(whole.Kvs, chunk.Kvs...)
			if i == len(parts.Messages)-1 {
				whole.Header, whole.More, whole.Count = chunk.Header, chunk.More, chunk.Count
			}
		}
		return differ.Answer{Messages: []proto.Message{whole}, Status: parts.Status}
	})
}

func (g *generator) putRequest() *pb.PutRequest {
	req := &pb.PutRequest{Key: g.keys.key(g.Rand), PrevKv: chance(g.Rand, 40), Lease: g.anyLease()}
	if chance(g.Rand, 8) {
		req.IgnoreValue = true
	} else {
		req.Value = value(g.Rand)
	}
	if chance(g.Rand, 8) {
		req.IgnoreLease, req.Lease = true, 0
	}
	return req
}

func askPut(g *generator, name string) {
	a := g.pair.Invoke(name, method("KV", "Put"), g.putRequest(), into[pb.PutResponse]())
	if a.OK() {
		g.note(a.Messages[0].(*pb.PutResponse).Header)
	}
}

func (g *generator) deleteRequest() *pb.DeleteRangeRequest {
	req := &pb.DeleteRangeRequest{Key: g.keys.key(g.Rand), PrevKv: chance(g.Rand, 40)}
	switch n := g.IntN(100); {
	case n < 70: // one key: deleting much leaves little to ask about
	case n < 98:
		req.RangeEnd = prefixEnd(req.Key)
	default:
		req.Key, req.RangeEnd = g.keys.interval(g.Rand)
	}
	return req
}

func askDelete(g *generator, name string) {
	a := g.pair.Invoke(name, method("KV", "DeleteRange"), g.deleteRequest(), into[pb.DeleteRangeResponse]())
	if a.OK() {
		g.note(a.Messages[0].(*pb.DeleteRangeResponse).Header)
	}
}

func askCompact(g *generator, name string) {
	req := &pb.CompactionRequest{Physical: chance(g.Rand, 50)}
	switch g.IntN(10) {
	case 0:
		req.Revision = g.revision + 1 + g.Int64N(5)
	case 1:
		req.Revision = max(g.compacted, 0) // the same again, or 0 for the first time
	case 2:
		req.Revision = -g.Int64N(3)
	case 3:
		req.Revision = g.revision
	default:
		floor := max(g.compacted, 0)
		req.Revision = floor + g.Int64N(g.revision-floor+1)
	}
	// etcd loses a key that one revision both deleted and put again when that
	// very revision is compacted, and stops at the next read of it. There is
	// nothing to compare with, so such revisions are left out.
	for g.mixed[req.Revision] {
		req.Revision--
	}
	g.compact(name, req)
}

// compact asks for a compaction and, when it was taken, waits until both sides
// have finished its background part: the hash of the compaction is kept only
// then, and HashKV shows whether it is.
func (g *generator) compact(name string, req *pb.CompactionRequest) {
	g.watch.settle()
	a := g.pair.Invoke(name, method("KV", "Compact"), req, into[pb.CompactionResponse]())
	if !a.OK() {
		return
	}
	before := g.compacted
	g.compacted = req.Revision
	ref, sub := differ.Both(g.pair, func(side *differ.Side) error { return awaitCompaction(side, req.Revision, before) })
	if ref != nil || sub != nil {
		g.pair.Finding(name, "after "+differ.Show(req), show(ref), show(sub))
	}
}

func show(err error) string {
	if err == nil {
		return "compaction finished"
	}
	return err.Error()
}

func awaitCompaction(side *differ.Side, revision, before int64) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	client := pb.NewMaintenanceClient(side.Conn)
	for {
		resp, err := client.HashKV(ctx, &pb.HashKVRequest{Revision: revision})
		if err != nil {
			return status.Errorf(status.Code(err), "HashKV at the compacted revision, which should show the stored hash: %v", err)
		}
		// Revision 0 asks for the hash of the present, never for a stored one.
		if revision <= 0 || resp.CompactRevision == before {
			return nil
		}
		select {
		case <-ctx.Done():
			return status.Errorf(codes.DeadlineExceeded,
				"HashKV still answers with compact_revision %d instead of the stored hash's %d", resp.CompactRevision, before)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func askHashKV(g *generator, name string) {
	g.pair.Invoke(name, method("Maintenance", "HashKV"),
		&pb.HashKVRequest{Revision: g.anyRevision()}, into[pb.HashKVResponse]())
}
