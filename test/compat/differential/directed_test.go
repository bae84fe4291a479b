package differential

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"milepost.dev/test/compat/differ"
	"milepost.dev/test/compat/harness"
)

// The tests of this file ask chosen questions where chance would rarely lead,
// or where a pair of servers must be brought into a state of its own.

func startPair(t *testing.T, args ...string) *differ.Pair {
	t.Helper()
	pair := differ.StartPair(t, harness.Options{NoSync: true, Args: args})
	t.Cleanup(func() { t.Log("\n" + pair.Table.String()) })
	return pair
}

func put(p *differ.Pair, key, value string) differ.Answer {
	return p.Invoke("put", method("KV", "Put"), &pb.PutRequest{Key: []byte(key), Value: []byte(value)}, into[pb.PutResponse]())
}

func everything(p *differ.Pair) differ.Answer {
	return p.Invoke("range", method("KV", "Range"), &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}, into[pb.RangeResponse]())
}

// TestIdentity: two members that advertise the same peer URL under the same
// token take the same ids, so that here even those are compared.
func TestIdentity(t *testing.T) {
	opts := harness.Options{NoSync: true, AdvertisePeerURL: "http://127.0.0.1:23800", Args: []string{"--initial-cluster-token=tok"}}
	pair := differ.StartPair(t, opts)
	if pair.Ref.MemberID != pair.Sub.MemberID || pair.Ref.ClusterID != pair.Sub.ClusterID {
		t.Errorf("member and cluster id: reference %x %x, subject %x %x",
			pair.Ref.MemberID, pair.Ref.ClusterID, pair.Sub.MemberID, pair.Sub.ClusterID)
	}
	pair.Invoke("member list", method("Cluster", "MemberList"), &pb.MemberListRequest{}, into[pb.MemberListResponse]())
}

// TestFreshMember asks before anything has been written.
func TestFreshMember(t *testing.T) {
	pair := startPair(t)
	everything(pair)
	pair.Invoke("status", method("Maintenance", "Status"), &pb.StatusRequest{}, into[pb.StatusResponse]())
	for _, rev := range []int64{0, 1, 2} {
		pair.Invoke("hash kv", method("Maintenance", "HashKV"), &pb.HashKVRequest{Revision: rev}, into[pb.HashKVResponse]())
	}
	pair.Invoke("delete", method("KV", "DeleteRange"), &pb.DeleteRangeRequest{Key: []byte("a")}, into[pb.DeleteRangeResponse]())
	pair.Invoke("txn", method("KV", "Txn"), &pb.TxnRequest{}, into[pb.TxnResponse]())
	for _, rev := range []int64{-1, 0, 0, 1, 1, 2} {
		pair.Invoke("compact", method("KV", "Compact"), &pb.CompactionRequest{Revision: rev, Physical: true}, into[pb.CompactionResponse]())
	}
	everything(pair)
	put(pair, "a", "1")
	everything(pair)
	for _, side := range []*differ.Side{pair.Ref, pair.Sub} { // when it is counted is the engine's own affair
		harness.Eventually(t, 15*time.Second, func() error {
			resp, err := pb.NewMaintenanceClient(side.Conn).Status(context.Background(), &pb.StatusRequest{})
			if err == nil && (resp.DbSizeInUse <= 0 || resp.DbSizeInUse > resp.DbSize) {
				err = fmt.Errorf("%s uses %d bytes of %d", side.Server.Binary.Name, resp.DbSizeInUse, resp.DbSize)
			}
			return err
		})
	}
}

// TestSortOrders: with values that are all different every target has one order,
// which the generated run cannot demand.
func TestSortOrders(t *testing.T) {
	pair := startPair(t)
	for i := range 20 {
		put(pair, fmt.Sprintf("k%02d", (i*7)%20), fmt.Sprintf("v%02d", (i*13)%20))
	}
	for i := range 20 { // versions 1 to 20, each once
		for range i {
			put(pair, fmt.Sprintf("k%02d", (i*3)%20), fmt.Sprintf("w%02d", (i*11)%20))
		}
	}
	for target := range pb.RangeRequest_SortTarget_name {
		for order := range pb.RangeRequest_SortOrder_name {
			for _, limit := range []int64{0, 1, 7, 20, 21} {
				for _, keysOnly := range []bool{false, true} {
					pair.Invoke("range", method("KV", "Range"), &pb.RangeRequest{
						Key: []byte("k"), RangeEnd: []byte("l"), Limit: limit, KeysOnly: keysOnly,
						SortTarget: pb.RangeRequest_SortTarget(target), SortOrder: pb.RangeRequest_SortOrder(order),
					}, into[pb.RangeResponse]())
				}
			}
		}
	}
}

// TestRangeStreamChunks: many keys and large values, so that the stream has
// several parts; the parts together are one Range.
func TestRangeStreamChunks(t *testing.T) {
	pair := startPair(t)
	for i := range 300 {
		put(pair, fmt.Sprintf("small/%04d", i), "x")
	}
	for i := range 12 {
		put(pair, fmt.Sprintf("big/%02d", i), string(bytes.Repeat([]byte{byte(i)}, 700<<10)))
	}
	for _, req := range []*pb.RangeRequest{
		{Key: []byte{0}, RangeEnd: []byte{0}},
		{Key: []byte("small/"), RangeEnd: []byte("small0")},
		{Key: []byte("small/"), RangeEnd: []byte("small0"), Limit: 25},
		{Key: []byte("small/"), RangeEnd: []byte("small0"), Limit: 300},
		{Key: []byte("small/"), RangeEnd: []byte("small0"), Revision: 150},
		{Key: []byte("small/"), RangeEnd: []byte("small0"), KeysOnly: true},
		{Key: []byte{0}, RangeEnd: []byte{0}, CountOnly: true},
		{Key: []byte("none"), RangeEnd: []byte("nonf")},
	} {
		whole := pair.Invoke("range", method("KV", "Range"), req, into[pb.RangeResponse]())
		pair.Ask("range stream", method("KV", "RangeStream"), req, func(ctx context.Context, side *differ.Side) differ.Answer {
			stream, err := pb.NewKVClient(side.Conn).RangeStream(ctx, req)
			if err != nil {
				return differ.Answer{Status: status.Convert(err)}
			}
			parts := differ.Stream(stream.Recv)
			joined := &pb.RangeResponse{}
			for _, part := range parts.Messages {
				proto.Merge(joined, part.(*pb.RangeStreamResponse).RangeResponse)
			}
			unary := whole.Messages[0].(*pb.RangeResponse)
			if !slices.EqualFunc(joined.Kvs, unary.Kvs, func(a, b *mvccpb.KeyValue) bool { return proto.Equal(a, b) }) {
				return differ.Answer{Status: status.New(codes.Internal, "the stream's key-values are not those of a Range")}
			}
			return differ.Answer{Messages: []proto.Message{joined}, Status: parts.Status}
		})
	}
}

// TestAlarms: what still works while NOSPACE or CORRUPT is raised by hand.
func TestAlarms(t *testing.T) {
	for _, kind := range []pb.AlarmType{pb.AlarmType_NOSPACE, pb.AlarmType_CORRUPT} {
		t.Run(kind.String(), func(t *testing.T) {
			pair := startPair(t)
			own := func(action pb.AlarmRequest_AlarmAction) {
				pair.InvokeEach("alarm", method("Maintenance", "Alarm"), func(side *differ.Side) proto.Message {
					return &pb.AlarmRequest{Action: action, MemberID: side.MemberID, Alarm: kind}
				}, into[pb.AlarmResponse](), nil)
			}
			put(pair, "a", "1")
			put(pair, "b", "1")
			own(pb.AlarmRequest_ACTIVATE)
			own(pb.AlarmRequest_ACTIVATE) // again
			own(pb.AlarmRequest_GET)
			askEverythingOnce(pair)
			pair.Invoke("alarm", method("Maintenance", "Alarm"), // nobody's alarm
				&pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: 1, Alarm: kind}, into[pb.AlarmResponse]())
			bothHTTP(t, pair, "GET", "/health")
			bothHTTP(t, pair, "GET", "/health?exclude="+kind.String())
			own(pb.AlarmRequest_DEACTIVATE)
			own(pb.AlarmRequest_DEACTIVATE)
			askEverythingOnce(pair)
			bothHTTP(t, pair, "GET", "/health")
		})
	}
}

// askEverythingOnce sends one request of each sort that an alarm may stop.
func askEverythingOnce(p *differ.Pair) {
	key := []byte("a")
	putOp := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key}}}
	delOp := &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: key}}}
	getOp := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: key}}}
	p.Invoke("put", method("KV", "Put"), &pb.PutRequest{Key: key}, into[pb.PutResponse]())
	p.Invoke("put", method("KV", "Put"), &pb.PutRequest{}, into[pb.PutResponse]()) // alarm or key first?
	p.Invoke("range", method("KV", "Range"), &pb.RangeRequest{Key: key}, into[pb.RangeResponse]())
	p.Invoke("txn put", method("KV", "Txn"), &pb.TxnRequest{Success: []*pb.RequestOp{putOp}}, into[pb.TxnResponse]())
	p.Invoke("txn put elsewhere", method("KV", "Txn"), &pb.TxnRequest{Success: []*pb.RequestOp{getOp}, Failure: []*pb.RequestOp{putOp}}, into[pb.TxnResponse]())
	p.Invoke("txn delete", method("KV", "Txn"), &pb.TxnRequest{Success: []*pb.RequestOp{delOp}}, into[pb.TxnResponse]())
	p.Invoke("txn range", method("KV", "Txn"), &pb.TxnRequest{Success: []*pb.RequestOp{getOp}}, into[pb.TxnResponse]())
	p.Invoke("txn empty", method("KV", "Txn"), &pb.TxnRequest{}, into[pb.TxnResponse]())
	p.Invoke("delete", method("KV", "DeleteRange"), &pb.DeleteRangeRequest{Key: []byte("b")}, into[pb.DeleteRangeResponse]())
	p.Invoke("lease grant", method("Lease", "LeaseGrant"), &pb.LeaseGrantRequest{ID: 99, TTL: 1000}, into[pb.LeaseGrantResponse]())
	p.Invoke("lease revoke", method("Lease", "LeaseRevoke"), &pb.LeaseRevokeRequest{ID: 99}, into[pb.LeaseRevokeResponse]())
	p.Invoke("compact", method("KV", "Compact"), &pb.CompactionRequest{Revision: 2, Physical: true}, into[pb.CompactionResponse]())
	p.Invoke("hash kv", method("Maintenance", "HashKV"), &pb.HashKVRequest{}, into[pb.HashKVResponse]())
	p.Invoke("status", method("Maintenance", "Status"), &pb.StatusRequest{}, into[pb.StatusResponse]())
	everything(p)
}

// TestLeaseLife: shortest times, order of the list, remaining time, and expiry
// with all its events.
func TestLeaseLife(t *testing.T) {
	pair := startPair(t)
	watch := pair.OpenWatch("watch events", nil)
	watch.Send("watch create", createRequest(&pb.WatchCreateRequest{Key: []byte{0}, RangeEnd: []byte{0}, PrevKv: true}))
	for _, ttl := range []int64{-5, 0, 1, 2, 3} { // raised to the shortest allowed
		pair.Invoke("lease grant", method("Lease", "LeaseGrant"), &pb.LeaseGrantRequest{ID: 1000 + ttl, TTL: ttl}, into[pb.LeaseGrantResponse]())
	}
	for i, ttl := range []int64{5000, 3000, 4000, 90} {
		pair.Invoke("lease grant", method("Lease", "LeaseGrant"), &pb.LeaseGrantRequest{ID: int64(i + 1), TTL: ttl}, into[pb.LeaseGrantResponse]())
	}
	for _, key := range []string{"z", "a", "m", "\x00", "\xff"} {
		pair.Invoke("put", method("KV", "Put"), &pb.PutRequest{Key: []byte(key), Lease: 1003}, into[pb.PutResponse]())
	}
	pair.Invoke("put", method("KV", "Put"), &pb.PutRequest{Key: []byte("moved"), Lease: 1003}, into[pb.PutResponse]())
	pair.Invoke("put", method("KV", "Put"), &pb.PutRequest{Key: []byte("moved"), Lease: 1}, into[pb.PutResponse]())
	pair.Invoke("put", method("KV", "Put"), &pb.PutRequest{Key: []byte("freed"), Lease: 1003}, into[pb.PutResponse]())
	pair.Invoke("put", method("KV", "Put"), &pb.PutRequest{Key: []byte("freed")}, into[pb.PutResponse]())
	// The short ones are revoked within a few seconds; then the order of the
	// rest is that of the remaining time.
	deletions := func(log []*pb.WatchResponse) bool {
		return differ.Count(log, func(r *pb.WatchResponse) bool {
			return len(r.Events) > 0 && r.Events[0].Type == mvccpb.Event_DELETE
		}) > 0
	}
	watch.Await("the deletion of an expired lease's keys", deletions)
	for _, side := range []*differ.Side{pair.Ref, pair.Sub} {
		harness.Eventually(t, 10*time.Second, func() error {
			resp, err := pb.NewLeaseClient(side.Conn).LeaseLeases(context.Background(), &pb.LeaseLeasesRequest{})
			if err == nil && len(resp.Leases) != 4 {
				err = fmt.Errorf("%s still has leases %v", side.Server.Binary.Name, resp.Leases)
			}
			return err
		})
	}
	watch.CompareNew(false)
	pair.Invoke("lease list", method("Lease", "LeaseLeases"), &pb.LeaseLeasesRequest{}, into[pb.LeaseLeasesResponse]())
	everything(pair)
	remaining := func(side *differ.Side) int64 {
		resp, err := pb.NewLeaseClient(side.Conn).LeaseTimeToLive(context.Background(), &pb.LeaseTimeToLiveRequest{ID: 1})
		if err != nil {
			t.Fatal(err)
		}
		return resp.TTL
	}
	if a, b := remaining(pair.Ref), remaining(pair.Sub); a-b > 5 || b-a > 5 {
		t.Errorf("remaining time of one lease: reference %d, subject %d", a, b)
	}
	pair.Invoke("hash kv", method("Maintenance", "HashKV"), &pb.HashKVRequest{}, into[pb.HashKVResponse]())
}

// TestRestart: after a stop and a start the two still agree on everything that
// can be asked: keys, old revisions, hashes, leases, history.
func TestRestart(t *testing.T) {
	pair := startPair(t)
	g := newGenerator(pair, 77)
	seed := []kind{
		{name: "put", ask: askPut}, {name: "put", ask: askPut}, {name: "txn", ask: askTxn},
		{name: "delete", ask: askDelete}, {name: "lease grant", ask: askLeaseGrant},
	}
	for i := range 500 {
		k := seed[i%len(seed)]
		k.ask(g, k.name)
	}
	g.compact("compact", &pb.CompactionRequest{Revision: g.revision / 2})
	for i := range 200 {
		k := seed[i%len(seed)]
		k.ask(g, k.name)
	}
	for round, stop := range []func(*harness.Server) error{
		func(s *harness.Server) error { _, err := s.Terminate(); return err },
		func(s *harness.Server) error { s.Kill(); return nil },
	} {
		refErr, subErr := differ.Both(pair, func(side *differ.Side) error {
			if err := stop(side.Server); err != nil {
				return err
			}
			return side.Server.Run()
		})
		if refErr != nil || subErr != nil {
			t.Fatalf("restart %d: reference %v, subject %v", round, refErr, subErr)
		}
		pair.Reconnect()
		everything(pair)
		askHashKV(g, "hash kv")
		askLeaseLeases(g, "lease list")
		for _, id := range g.leases {
			pair.Invoke("lease time to live", method("Lease", "LeaseTimeToLive"),
				&pb.LeaseTimeToLiveRequest{ID: id}, into[pb.LeaseTimeToLiveResponse]())
		}
		for rev := g.compacted - 1; rev <= g.revision+1; rev += 7 {
			pair.Invoke("range", method("KV", "Range"),
				&pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Revision: rev}, into[pb.RangeResponse]())
			pair.Invoke("hash kv", method("Maintenance", "HashKV"), &pb.HashKVRequest{Revision: rev}, into[pb.HashKVResponse]())
		}
		g.watch = newWatchersFrom(g, max(g.compacted, 1))
		g.watch.settle()
		for i := range 100 {
			k := seed[i%len(seed)]
			k.ask(g, k.name)
		}
		g.watch.settle()
	}
}

// TestRequestSize: the two limits, of a proposal and of a message.
func TestRequestSize(t *testing.T) {
	pair := startPair(t)
	const limit = 1_572_864 // --max-request-bytes by default
	value := func(n int) []byte { return bytes.Repeat([]byte{'v'}, n) }
	for _, n := range []int{limit - 200, limit, limit + 1, limit + 300_000} {
		pair.Invoke("put large", method("KV", "Put"), &pb.PutRequest{Key: []byte("k"), Value: value(n)}, into[pb.PutResponse]())
	}
	// A key alone may be as large.
	pair.Invoke("put large", method("KV", "Put"), &pb.PutRequest{Key: value(limit - 200)}, into[pb.PutResponse]())
	pair.Invoke("range", method("KV", "Range"), &pb.RangeRequest{Key: []byte("v"), RangeEnd: []byte{0}, KeysOnly: true}, into[pb.RangeResponse]())
	// One message more than the transport takes: the text holds both sizes.
	for _, n := range []int{limit + 512<<10 - 8, limit + 512<<10, 3 << 20} {
		pair.Invoke("put huge", method("KV", "Put"), &pb.PutRequest{Key: []byte("k"), Value: value(n)}, into[pb.PutResponse]())
	}
	pair.Invoke("range huge", method("KV", "Range"), &pb.RangeRequest{Key: value(3 << 20)}, into[pb.RangeResponse]())
	everything(pair)
}

// TestSmallLimits: the two limits as flags.
func TestSmallLimits(t *testing.T) {
	pair := startPair(t, "--max-request-bytes=1000", "--max-txn-ops=3")
	for _, n := range []int{10, 900, 1000, 1001, 5000, 600_000} {
		put(pair, "k", string(bytes.Repeat([]byte{'v'}, n)))
	}
	for _, n := range []int{2, 3, 4} {
		req := &pb.TxnRequest{}
		for i := range n {
			req.Success = append(req.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte{byte('a' + i)}}}})
		}
		pair.Invoke("txn", method("KV", "Txn"), req, into[pb.TxnResponse]())
	}
	everything(pair)
}

// TestQuota: a store that is full says so, raises the alarm, and still deletes.
func TestQuota(t *testing.T) {
	pair := startPair(t, "--quota-backend-bytes=8388608")
	value := string(bytes.Repeat([]byte{'q'}, 1<<20))
	type fill struct {
		puts int
		err  *status.Status
	}
	ref, sub := differ.Both(pair, func(side *differ.Side) fill {
		for i := 0; ; i++ {
			_, err := pb.NewKVClient(side.Conn).Put(context.Background(), &pb.PutRequest{Key: fmt.Append(nil, i), Value: []byte(value)})
			if err != nil || i == 100 {
				return fill{i, status.Convert(err)}
			}
		}
	})
	// The engines fill their files differently, so that the number of puts that
	// fit is not compared; that some fit and then none is.
	if !proto.Equal(ref.err.Proto(), sub.err.Proto()) {
		t.Errorf("a full store: reference %v, subject %v", ref.err, sub.err)
	}
	if ref.puts < 3 || sub.puts < 3 {
		t.Errorf("1 MiB values that fit into 8 MiB: reference %d, subject %d", ref.puts, sub.puts)
	}
	pair.InvokeEach("alarm", method("Maintenance", "Alarm"), func(*differ.Side) proto.Message { return &pb.AlarmRequest{} },
		into[pb.AlarmResponse](), func(_, resp proto.Message) { resp.(*pb.AlarmResponse).Header.Revision = 0 })
	pair.InvokeEach("status", method("Maintenance", "Status"), func(*differ.Side) proto.Message { return &pb.StatusRequest{} },
		into[pb.StatusResponse](), func(_, resp proto.Message) { resp.(*pb.StatusResponse).Header.Revision = 0 })
	for _, side := range []*differ.Side{pair.Ref, pair.Sub} {
		if _, err := pb.NewKVClient(side.Conn).DeleteRange(context.Background(), &pb.DeleteRangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}); err != nil {
			t.Errorf("%s: deleting from a full store: %v", side.Server.Binary.Name, err)
		}
	}
}
