package differ

import (
	"bytes"
	"fmt"
	"sort"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// CanonRange puts a Range answer into a form in which ties do not matter: etcd
// sorts by other targets than the key with an unstable sort, so that the order
// among equal values, and which of them survive a limit, is not defined.
// Everything else about the order stays as it came.
func CanonRange(req, resp proto.Message) {
	canonRange(req.(*pb.RangeRequest), resp.(*pb.RangeResponse))
}

// CanonTxn does the same for every range of the executed branches.
func CanonTxn(req, resp proto.Message) { canonTxn(req.(*pb.TxnRequest), resp.(*pb.TxnResponse)) }

func canonTxn(req *pb.TxnRequest, resp *pb.TxnResponse) {
	ops := req.Failure
	if resp.Succeeded {
		ops = req.Success
	}
	for i, op := range ops {
		if i >= len(resp.Responses) {
			return // too few answers: the comparison will say so
		}
		if inner, out := op.GetRequestRange(), resp.Responses[i].GetResponseRange(); inner != nil && out != nil {
			canonRange(inner, out)
		}
		if inner, out := op.GetRequestTxn(), resp.Responses[i].GetResponseTxn(); inner != nil && out != nil {
			canonTxn(inner, out)
		}
	}
}

func canonRange(req *pb.RangeRequest, resp *pb.RangeResponse) {
	if req.SortTarget == pb.RangeRequest_KEY || len(resp.Kvs) == 0 {
		return
	}
	// The values that were sorted are not in a keys-only answer: then nothing
	// can be said about the order at all.
	blind := req.KeysOnly && req.SortTarget == pb.RangeRequest_VALUE
	same := func(a, b *mvccpb.KeyValue) bool {
		return blind || bytes.Equal(sortedBy(req.SortTarget, a), sortedBy(req.SortTarget, b))
	}
	for from := 0; from < len(resp.Kvs); {
		to := from + 1
		for to < len(resp.Kvs) && same(resp.Kvs[from], resp.Kvs[to]) {
			to++
		}
		group := resp.Kvs[from:to]
		sort.Slice(group, func(i, j int) bool { return bytes.Compare(group[i].Key, group[j].Key) < 0 })
		if to == len(resp.Kvs) && resp.More {
			// The limit cut through this group: its members are not defined,
			// their number and their sorted value are.
			for i, kv := range group {
				var shared []byte
				if !blind {
					shared = sortedBy(req.SortTarget, kv)
				}
				group[i] = &mvccpb.KeyValue{Value: shared}
			}
		}
		from = to
	}
}

func sortedBy(target pb.RangeRequest_SortTarget, kv *mvccpb.KeyValue) []byte {
	switch target {
	case pb.RangeRequest_VERSION:
		return fmt.Append(nil, kv.Version)
	case pb.RangeRequest_CREATE:
		return fmt.Append(nil, kv.CreateRevision)
	case pb.RangeRequest_MOD:
		return fmt.Append(nil, kv.ModRevision)
	case pb.RangeRequest_VALUE:
		return kv.Value
	default:
		return kv.Key
	}
}
