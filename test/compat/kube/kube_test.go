// Package kube sends what a Kubernetes API server sends to its store: objects
// created, updated and deleted by transactions that compare the revision they
// were read at, paged lists pinned to one revision, counts, and watches over
// resource prefixes. Both servers get the same, and must say the same.
package kube

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"milepost.dev/test/compat/differ"
	"milepost.dev/test/compat/harness"
)

// apiServer is the client's view: what it believes about each object.
type apiServer struct {
	*rand.Rand
	t    *testing.T
	pair *differ.Pair
	// seen is the revision at which each object was last read; 0 is "deleted".
	seen     map[string]int64
	revision int64
	lease    int64
	leases   int64
}

var resources = []string{"pods", "leases", "events", "configmaps", "services/specs"}

func (a *apiServer) objectKey() string {
	return fmt.Sprintf("/registry/%s/ns%d/obj-%03d", resources[a.IntN(len(resources))], a.IntN(3), a.IntN(30))
}

func (a *apiServer) object(key string) []byte {
	return fmt.Appendf([]byte("k8s\x00\n\x09"), "%s generation %d %s", key, a.revision, bytes.Repeat([]byte{'.'}, a.IntN(2000)))
}

func txn(compare *pb.Compare, then, otherwise *pb.RequestOp) *pb.TxnRequest {
	req := &pb.TxnRequest{Compare: []*pb.Compare{compare}, Success: []*pb.RequestOp{then}}
	if otherwise != nil {
		req.Failure = []*pb.RequestOp{otherwise}
	}
	return req
}

func modRevision(key string, rev int64) *pb.Compare {
	return &pb.Compare{
		Key: []byte(key), Target: pb.Compare_MOD, Result: pb.Compare_EQUAL,
		TargetUnion: &pb.Compare_ModRevision{ModRevision: rev},
	}
}

func get(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte(key)}}}
}

func put(key string, value []byte, lease int64) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: value, Lease: lease}}}
}

func remove(key string) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key)}}}
}

func (a *apiServer) txn(kind string, req *pb.TxnRequest) *pb.TxnResponse {
	a.t.Helper()
	answer := a.pair.Invoke(kind, pb.KV_Txn_FullMethodName, req, func() proto.Message { return &pb.TxnResponse{} })
	if !answer.OK() {
		a.t.Fatalf("the reference refuses %s: %v", kind, answer.Status)
	}
	resp := answer.Messages[0].(*pb.TxnResponse)
	a.revision = max(a.revision, resp.Header.Revision)
	return resp
}

// create puts an object only if there is none; some carry a lease, as events do.
func (a *apiServer) create() {
	key, lease := a.objectKey(), int64(0)
	if a.IntN(4) == 0 {
		lease = a.eventLease()
	}
	resp := a.txn("create", txn(modRevision(key, 0), put(key, a.object(key), lease), get(key)))
	a.learn("create", key, resp)
}

// eventLease is one lease for many objects: it is used again until chance, which
// here stands for time and number of objects, asks for a new one.
func (a *apiServer) eventLease() int64 {
	if a.lease == 0 || a.IntN(20) == 0 {
		a.leases++
		a.lease = 0x10_0000 + a.leases
		a.pair.Invoke("lease grant", pb.Lease_LeaseGrant_FullMethodName,
			&pb.LeaseGrantRequest{ID: a.lease, TTL: 3660}, func() proto.Message { return &pb.LeaseGrantResponse{} })
	}
	return a.lease
}

// update replaces an object at the revision this client has seen, which may be
// out of date: then the reply holds the present one, and it tries again.
func (a *apiServer) update() {
	key := a.objectKey()
	for range 2 {
		resp := a.txn("update", txn(modRevision(key, a.seen[key]), put(key, a.object(key), 0), get(key)))
		if a.learn("update", key, resp) {
			return
		}
	}
}

// delete removes an object at the revision this client has seen.
func (a *apiServer) delete() {
	key := a.objectKey()
	for range 2 {
		resp := a.txn("delete", txn(modRevision(key, a.seen[key]), remove(key), get(key)))
		if resp.Succeeded {
			a.pair.Table.Count("delete done", 0)
			a.seen[key] = 0
			return
		}
		a.learn("delete", key, resp)
		if a.seen[key] == 0 {
			return
		}
	}
}

// learn takes over what a reply says about an object.
func (a *apiServer) learn(kind, key string, resp *pb.TxnResponse) bool {
	if resp.Succeeded {
		a.pair.Table.Count(kind+" done", 0)
		a.seen[key] = resp.Header.Revision
		return true
	}
	a.pair.Table.Count(kind+" conflict", 0)
	a.seen[key] = 0
	if kvs := resp.Responses[0].GetResponseRange().GetKvs(); len(kvs) == 1 {
		a.seen[key] = kvs[0].ModRevision
	}
	return false
}

// stale is an update that lost a race against another API server.
func (a *apiServer) stale() {
	key := a.objectKey()
	if a.seen[key] > 2 {
		a.seen[key] -= 1 + a.Int64N(2)
	}
}

func (a *apiServer) get() {
	a.pair.Invoke("get", pb.KV_Range_FullMethodName, &pb.RangeRequest{Key: []byte(a.objectKey()), Serializable: a.IntN(4) == 0},
		func() proto.Message { return &pb.RangeResponse{} })
}

// list pages through a resource: the first page decides the revision, the
// others go on after the last key at that revision.
func (a *apiServer) list() {
	prefix := "/registry/" + resources[a.IntN(len(resources))] + "/"
	end := []byte(prefix[:len(prefix)-1] + "0")
	limit := int64(1 + a.IntN(40))
	key, revision := []byte(prefix), int64(0)
	var listed []*mvccpb.KeyValue
	for {
		answer := a.pair.Invoke("list page", pb.KV_Range_FullMethodName,
			&pb.RangeRequest{Key: key, RangeEnd: end, Limit: limit, Revision: revision},
			func() proto.Message { return &pb.RangeResponse{} })
		if !answer.OK() {
			a.t.Fatalf("the reference refuses a page: %v", answer.Status)
		}
		resp := answer.Messages[0].(*pb.RangeResponse)
		listed = append(listed, resp.Kvs...)
		if revision == 0 {
			revision = resp.Header.Revision
		}
		if !resp.More {
			break
		}
		key = append(bytes.Clone(resp.Kvs[len(resp.Kvs)-1].Key), 0)
		if a.IntN(3) == 0 { // others go on writing between two pages
			a.update()
		}
	}
	whole := a.pair.Invoke("list", pb.KV_Range_FullMethodName,
		&pb.RangeRequest{Key: []byte(prefix), RangeEnd: end, Revision: revision},
		func() proto.Message { return &pb.RangeResponse{} })
	if resp := whole.Messages[0].(*pb.RangeResponse); len(resp.Kvs) != len(listed) {
		a.t.Errorf("%d objects in pages, %d at once", len(listed), len(resp.Kvs))
	}
}

func (a *apiServer) count() {
	prefix := "/registry/" + resources[a.IntN(len(resources))] + "/"
	a.pair.Invoke("count", pb.KV_Range_FullMethodName,
		&pb.RangeRequest{Key: []byte(prefix), RangeEnd: []byte(prefix[:len(prefix)-1] + "0"), CountOnly: true},
		func() proto.Message { return &pb.RangeResponse{} })
}

// compact is the API server's own: a transaction on a key of its own decides
// which of several servers does it, then the revision of last time goes.
func (a *apiServer) compact(last int64, version *int64) {
	key := "compact_rev_key"
	resp := a.txn("compact election", &pb.TxnRequest{
		Compare: []*pb.Compare{{
			Key: []byte(key), Target: pb.Compare_VERSION, Result: pb.Compare_EQUAL,
			TargetUnion: &pb.Compare_Version{Version: *version},
		}},
		Success: []*pb.RequestOp{put(key, fmt.Append(nil, a.revision), 0)},
		Failure: []*pb.RequestOp{get(key)},
	})
	if !resp.Succeeded {
		a.t.Fatal("the reference has lost the compaction key's version")
	}
	*version++
	a.pair.Invoke("compact", pb.KV_Compact_FullMethodName, &pb.CompactionRequest{Revision: last, Physical: true},
		func() proto.Message { return &pb.CompactionResponse{} })
	a.pair.Invoke("hash kv", pb.Maintenance_HashKV_FullMethodName, &pb.HashKVRequest{Revision: last},
		func() proto.Message { return &pb.HashKVResponse{} })
}

// TestRegistry runs all of it for some rounds, under watches as the watch
// cache has them: one per resource, with previous values and progress, from
// the revision of the first list.
func TestRegistry(t *testing.T) {
	seed := uint64(harness.IntEnv(t, "COMPAT_SEED", 20_26))
	rounds := harness.IntEnv(t, "COMPAT_KUBE_ROUNDS", 12)
	t.Logf("replay with: COMPAT_SEED=%d COMPAT_KUBE_ROUNDS=%d go test ./kube", seed, rounds)
	pair := differ.StartPair(t, harness.Options{NoSync: true})
	a := &apiServer{Rand: rand.New(rand.NewPCG(seed, 8)), t: t, pair: pair, seen: map[string]int64{}, revision: 1}
	watch := pair.OpenWatch("watch", nil)
	for i, r := range resources {
		watch.Send("watch", &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
			Key: []byte("/registry/" + r + "/"), RangeEnd: []byte("/registry/" + r + "0"),
			StartRevision: 1, PrevKv: true, ProgressNotify: true,
		}}})
		watch.Await("a created reply", func(log []*pb.WatchResponse) bool {
			return differ.Count(log, func(r *pb.WatchResponse) bool { return r.Created }) > i
		})
	}
	watch.Progress(1)
	var version int64
	verbs := []func(){a.create, a.create, a.create, a.update, a.update, a.update, a.update, a.delete, a.stale, a.get, a.get, a.count}
	for round := range rounds {
		last := a.revision
		for range 200 {
			verbs[a.IntN(len(verbs))]()
		}
		a.list()
		watch.Progress(a.revision)
		watch.CompareNew(false)
		if round > 0 {
			a.compact(last, &version)
		}
	}
	late := pair.OpenWatch("watch late", nil)
	late.Send("watch late", &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key: []byte("/registry/"), RangeEnd: []byte("/registry0"), StartRevision: a.revision - 50, PrevKv: true,
	}}})
	late.Progress(a.revision)
	late.CompareNew(false)
	revoked := pair.Invoke("lease revoke", pb.Lease_LeaseRevoke_FullMethodName, &pb.LeaseRevokeRequest{ID: a.lease},
		func() proto.Message { return &pb.LeaseRevokeResponse{} })
	if revoked.OK() {
		a.revision = revoked.Messages[0].(*pb.LeaseRevokeResponse).Header.Revision
	}
	pair.Invoke("hash kv", pb.Maintenance_HashKV_FullMethodName, &pb.HashKVRequest{}, func() proto.Message { return &pb.HashKVResponse{} })
	watch.Progress(a.revision)
	watch.CompareNew(false)
	t.Log("\n" + pair.Table.String())
	for _, complaint := range pair.Table.Below([]differ.Floor{
		{Kind: "create done", OK: 15 * rounds}, {Kind: "create conflict", OK: 5 * rounds},
		{Kind: "update done", OK: 30 * rounds}, {Kind: "update conflict", OK: 3 * rounds},
		{Kind: "delete done", OK: 3 * rounds}, {Kind: "get", OK: 15 * rounds},
		{Kind: "list page", OK: 2 * rounds}, {Kind: "list", OK: rounds}, {Kind: "count", OK: 5 * rounds},
		{Kind: "compact", OK: rounds - 1}, {Kind: "lease grant", OK: 2}, {Kind: "lease revoke", OK: 1},
	}) {
		t.Error("below the floor: " + complaint)
	}
}
