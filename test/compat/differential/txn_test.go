package differential

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"milepost.dev/test/compat/differ"
)

// txnPlan limits one generated transaction. A transaction that deletes a key
// and then puts it with ignore_value would stop etcd itself where the
// duplicate check does not see it, so that the two do not go together.
type txnPlan struct {
	deletes, ignores bool
	// used are the keys already put or deleted, to be mostly avoided.
	used map[string]bool
}

func (g *generator) txnRequest(depth int, plan *txnPlan) *pb.TxnRequest {
	req := &pb.TxnRequest{}
	for range g.IntN(4) {
		req.Compare = append(req.Compare, g.compare())
	}
	req.Success = g.txnOps(depth, plan)
	req.Failure = g.txnOps(depth, plan)
	return req
}

func (g *generator) txnOps(depth int, plan *txnPlan) []*pb.RequestOp {
	var ops []*pb.RequestOp
	for range g.IntN(5) {
		ops = append(ops, g.txnOp(depth, plan))
	}
	return ops
}

func (g *generator) txnOp(depth int, plan *txnPlan) *pb.RequestOp {
	switch n := g.IntN(100); {
	case n < 35:
		req := g.rangeRequest()
		if chance(g.Rand, 85) {
			req.Revision = 0
		}
		return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: req}}
	case n < 50 && depth < 3:
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: g.txnRequest(depth+1, plan)}}
	case n < 65 && plan.deletes:
		req := g.deleteRequest()
		for tries := 0; plan.used[string(req.Key)] && tries < 6; tries++ {
			req = g.deleteRequest()
		}
		plan.used[string(req.Key)] = true
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: req}}
	default:
		req := g.putRequest()
		for tries := 0; plan.used[string(req.Key)] && tries < 6; tries++ {
			req.Key = g.keys.key(g.Rand)
		}
		plan.used[string(req.Key)] = true
		if !plan.ignores {
			req.IgnoreValue, req.IgnoreLease = false, false
		}
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: req}}
	}
}

// compare has every target with every result, ranges, targets whose union
// does not fit or is missing, and numbers that etcd does not know.
func (g *generator) compare() *pb.Compare {
	c := &pb.Compare{
		Key:    g.keys.key(g.Rand),
		Result: pb.Compare_CompareResult(g.IntN(4)),
		Target: pb.Compare_CompareTarget(g.IntN(5)),
	}
	if chance(g.Rand, 25) {
		c.Key, c.RangeEnd = g.keys.interval(g.Rand)
	}
	union := c.Target
	switch g.IntN(40) {
	case 0:
		union = pb.Compare_CompareTarget(g.IntN(5))
	case 1:
		return c
	case 2:
		c.Target = 99
	case 3:
		c.Result = 99
	}
	switch union {
	case pb.Compare_VERSION:
		c.TargetUnion = &pb.Compare_Version{Version: g.Int64N(4)}
	case pb.Compare_CREATE:
		c.TargetUnion = &pb.Compare_CreateRevision{CreateRevision: g.compareRevision()}
	case pb.Compare_MOD:
		c.TargetUnion = &pb.Compare_ModRevision{ModRevision: g.compareRevision()}
	case pb.Compare_VALUE:
		c.TargetUnion = &pb.Compare_Value{Value: value(g.Rand)}
	case pb.Compare_LEASE:
		c.TargetUnion = &pb.Compare_Lease{Lease: g.anyLease()}
	}
	return c
}

func (g *generator) compareRevision() int64 {
	if chance(g.Rand, 50) {
		return 0
	}
	return g.Int64N(g.revision + 1)
}

func (g *generator) txnPlan() *txnPlan {
	deletes := chance(g.Rand, 60)
	return &txnPlan{deletes: deletes, ignores: !deletes, used: map[string]bool{}}
}

func askTxn(g *generator, name string) {
	g.txn(name, g.txnRequest(1, g.txnPlan()))
}

// askTxnRead has ranges alone, so that it never reaches the log.
func askTxnRead(g *generator, name string) {
	req := &pb.TxnRequest{}
	for range g.IntN(3) {
		req.Compare = append(req.Compare, g.compare())
	}
	for _, branch := range []*[]*pb.RequestOp{&req.Success, &req.Failure} {
		for range g.IntN(4) {
			*branch = append(*branch, &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: g.rangeRequest()}})
		}
	}
	g.txn(name, req)
}

func (g *generator) txn(name string, req *pb.TxnRequest) {
	a := g.pair.InvokeEach(name, method("KV", "Txn"), func(*differ.Side) proto.Message { return req }, into[pb.TxnResponse](), differ.CanonTxn)
	if !a.OK() {
		return
	}
	resp := a.Messages[0].(*pb.TxnResponse)
	g.note(resp.Header)
	if puts, deletes := changes(resp); puts && deletes {
		g.mixed[resp.Header.Revision] = true
	}
}

// changes tells whether a transaction has put and whether it has deleted.
func changes(resp *pb.TxnResponse) (puts, deletes bool) {
	for _, op := range resp.Responses {
		switch {
		case op.GetResponsePut() != nil:
			puts = true
		case op.GetResponseDeleteRange().GetDeleted() > 0:
			deletes = true
		case op.GetResponseTxn() != nil:
			p, d := changes(op.GetResponseTxn())
			puts, deletes = puts || p, deletes || d
		}
	}
	return puts, deletes
}

// askTxnInvalid breaks one rule of the request itself; nothing may be written.
func askTxnInvalid(g *generator, name string) {
	put := func(key []byte) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: []byte("x")}}}
	}
	del := func(key, end []byte) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{
			RequestDeleteRange: &pb.DeleteRangeRequest{Key: key, RangeEnd: end},
		}}
	}
	nest := func(req *pb.TxnRequest) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: req}}
	}
	many := func(n int) []*pb.RequestOp {
		ops := make([]*pb.RequestOp, n)
		for i := range ops {
			ops[i] = put([]byte{'n', byte(i), byte(i >> 8)})
		}
		return ops
	}
	k := g.keys.key(g.Rand)
	req := &pb.TxnRequest{}
	branch := &req.Success
	if chance(g.Rand, 50) {
		branch = &req.Failure
	}
	switch g.IntN(22) {
	case 0: // the same key twice
		*branch = []*pb.RequestOp{put(k), put(k)}
	case 1: // put and delete of one key
		*branch = []*pb.RequestOp{put(k), del(k, nil)}
	case 2:
		*branch = []*pb.RequestOp{del(k, nil), put(k)}
	case 3: // covered by a range
		*branch = []*pb.RequestOp{put([]byte("reg/05")), del([]byte("reg/"), []byte("reg0"))}
	case 4: // covered from a nested transaction
		*branch = []*pb.RequestOp{put(k), nest(&pb.TxnRequest{Success: []*pb.RequestOp{del(k, nil)}})}
	case 5:
		*branch = []*pb.RequestOp{del(k, nil), nest(&pb.TxnRequest{Failure: []*pb.RequestOp{put(k)}})}
	case 6: // siblings
		*branch = []*pb.RequestOp{
			nest(&pb.TxnRequest{Success: []*pb.RequestOp{put(k)}}),
			nest(&pb.TxnRequest{Success: []*pb.RequestOp{put(k)}}),
		}
	case 7:
		*branch = many(129)
	case 8: // exactly as many as are allowed
		*branch = many(128)
	case 9: // the nested one gets what its parent leaves
		*branch = append(many(100), nest(&pb.TxnRequest{Success: many(28)}))
	case 10:
		for range 129 {
			req.Compare = append(req.Compare, &pb.Compare{Key: k})
		}
	case 11:
		*branch = []*pb.RequestOp{{}}
	case 12:
		*branch = []*pb.RequestOp{put(nil)}
	case 13:
		*branch = []*pb.RequestOp{del(nil, []byte{0})}
	case 14:
		*branch = []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{}}}}
	case 15:
		req.Compare = []*pb.Compare{{}}
		*branch = []*pb.RequestOp{put(k)}
	case 16:
		*branch = []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{
			RequestRange: &pb.RangeRequest{Key: k, SortTarget: 7},
		}}}
	case 17:
		*branch = []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{
			RequestPut: &pb.PutRequest{Key: k, Value: []byte("x"), IgnoreValue: true},
		}}}
	case 18: // in both branches: allowed, only one runs
		req.Success, req.Failure = []*pb.RequestOp{put(k)}, []*pb.RequestOp{put(k)}
	case 19: // both branches of one nested transaction: allowed
		*branch = []*pb.RequestOp{nest(&pb.TxnRequest{Success: []*pb.RequestOp{put(k)}, Failure: []*pb.RequestOp{put(k)}})}
	case 20: // an unknown lease stops the whole transaction, in the chosen branch only
		*branch = []*pb.RequestOp{put([]byte("before")), {Request: &pb.RequestOp_RequestPut{
			RequestPut: &pb.PutRequest{Key: k, Lease: 9999},
		}}}
	case 21: // deleting from a key on is not seen as covering
		*branch = []*pb.RequestOp{del([]byte("z"), []byte{0}), put([]byte("zz"))}
	}
	g.txn(name, req)
}
