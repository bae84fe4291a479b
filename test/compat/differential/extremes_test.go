package differential

import (
	"math"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"milepost.dev/test/compat/differ"
)

// TestExtremes puts the least, the greatest and neighbouring numbers into each
// number of each request. None may do harm, and all are answered as by etcd.
func TestExtremes(t *testing.T) {
	pair := startPair(t)
	for _, k := range []string{"a", "b", "c", "a"} {
		put(pair, k, k)
	}
	pair.Invoke("compact", method("KV", "Compact"), &pb.CompactionRequest{Revision: 2, Physical: true}, into[pb.CompactionResponse]())
	numbers := []int64{math.MinInt64, math.MinInt64 + 1, -1, 1, math.MaxInt32, math.MaxInt64 - 1, math.MaxInt64}
	ask := func(m string, req proto.Message, resp func() proto.Message) { pair.Invoke(m, m, req, resp) }
	for _, n := range numbers {
		for _, req := range []*pb.RangeRequest{
			{Revision: n}, {Limit: n}, {MinModRevision: n}, {MaxModRevision: n}, {MinCreateRevision: n}, {MaxCreateRevision: n},
			{Limit: n, SortOrder: pb.RangeRequest_DESCEND, SortTarget: pb.RangeRequest_MOD}, {Limit: n, SortTarget: pb.RangeRequest_CREATE},
			{Limit: n, CountOnly: true}, {SortOrder: pb.RangeRequest_SortOrder(int32(n))}, {SortTarget: pb.RangeRequest_SortTarget(int32(n))},
		} {
			req.Key, req.RangeEnd = []byte("a"), []byte("d")
			ask(pb.KV_Range_FullMethodName, req, into[pb.RangeResponse]())
			ask(pb.KV_Txn_FullMethodName, &pb.TxnRequest{Success: []*pb.RequestOp{
				{Request: &pb.RequestOp_RequestRange{RequestRange: req}},
				{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("none")}}},
			}}, into[pb.TxnResponse]())
		}
		ask(pb.KV_Put_FullMethodName, &pb.PutRequest{Key: []byte("x"), Lease: n}, into[pb.PutResponse]())
		for target := range pb.Compare_CompareTarget_name {
			for result := range pb.Compare_CompareResult_name {
				c := &pb.Compare{Key: []byte("a"), Target: pb.Compare_CompareTarget(target), Result: pb.Compare_CompareResult(result)}
				switch c.Target {
				case pb.Compare_VERSION:
					c.TargetUnion = &pb.Compare_Version{Version: n}
				case pb.Compare_CREATE:
					c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: n}
				case pb.Compare_MOD:
					c.TargetUnion = &pb.Compare_ModRevision{ModRevision: n}
				case pb.Compare_LEASE:
					c.TargetUnion = &pb.Compare_Lease{Lease: n}
				}
				ask(pb.KV_Txn_FullMethodName, &pb.TxnRequest{Compare: []*pb.Compare{c}}, into[pb.TxnResponse]())
			}
		}
		if n != 1 { // compacting at 1 is done by others
			ask(pb.KV_Compact_FullMethodName, &pb.CompactionRequest{Revision: n}, into[pb.CompactionResponse]())
		}
		ask(pb.Maintenance_HashKV_FullMethodName, &pb.HashKVRequest{Revision: n}, into[pb.HashKVResponse]())
		ask(pb.Lease_LeaseGrant_FullMethodName, &pb.LeaseGrantRequest{ID: n, TTL: 5000}, into[pb.LeaseGrantResponse]())
		if n != 1 && n != -1 && n > 0 { // the least times expire while others are asked
			ask(pb.Lease_LeaseGrant_FullMethodName, &pb.LeaseGrantRequest{ID: 4242, TTL: n}, into[pb.LeaseGrantResponse]())
			ask(pb.Lease_LeaseRevoke_FullMethodName, &pb.LeaseRevokeRequest{ID: 4242}, into[pb.LeaseRevokeResponse]())
		}
		ask(pb.KV_Put_FullMethodName, &pb.PutRequest{Key: []byte("leased"), Lease: n}, into[pb.PutResponse]())
		ask(pb.Lease_LeaseTimeToLive_FullMethodName, &pb.LeaseTimeToLiveRequest{ID: n, Keys: true}, into[pb.LeaseTimeToLiveResponse]())
		ask(pb.Lease_LeaseRevoke_FullMethodName, &pb.LeaseRevokeRequest{ID: n}, into[pb.LeaseRevokeResponse]())
		ask(pb.Lease_LeaseRevoke_FullMethodName, &pb.LeaseRevokeRequest{ID: n}, into[pb.LeaseRevokeResponse]())
		ask(pb.Maintenance_Alarm_FullMethodName, &pb.AlarmRequest{MemberID: uint64(n)}, into[pb.AlarmResponse]())
		ask(pb.Maintenance_Alarm_FullMethodName, &pb.AlarmRequest{
			Action: pb.AlarmRequest_DEACTIVATE, MemberID: uint64(n), Alarm: pb.AlarmType_NOSPACE,
		}, into[pb.AlarmResponse]())
	}
	for _, n := range append([]int64{0}, numbers...) {
		w := pair.OpenWatch("watch", nil)
		createAnd(w, &pb.WatchCreateRequest{Key: []byte("a"), RangeEnd: []byte{0}, StartRevision: n, PrevKv: true})
		if n == 1 {
			w.Await("canceled for compaction", func(log []*pb.WatchResponse) bool { return differ.Canceled(log, 0) })
		}
		w.CompareNew(true)
		if n != -1 && n != 0 { // minus one is the number of no watcher
			w = pair.OpenWatch("watch", nil)
			createAnd(w, &pb.WatchCreateRequest{Key: []byte("a"), WatchId: n})
			w.Send("watch", cancelRequest(n))
			w.Await("canceled", func(log []*pb.WatchResponse) bool { return differ.Canceled(log, n) })
			w.CompareNew(true)
		}
	}
	everything(pair)
}
