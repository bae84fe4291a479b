package differential

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"milepost.dev/test/compat/differ"
)

func askStatus(g *generator, name string) {
	g.pair.Invoke(name, method("Maintenance", "Status"), &pb.StatusRequest{}, into[pb.StatusResponse]())
}

// askAlarm never raises one: an alarm stops writes, and has its own tests.
func askAlarm(g *generator, name string) {
	req := &pb.AlarmRequest{Alarm: pb.AlarmType(g.IntN(3))}
	switch g.IntN(4) {
	case 0:
		req.Action = pb.AlarmRequest_DEACTIVATE
	case 1:
		req.Action, req.Alarm = pb.AlarmRequest_ACTIVATE, pb.AlarmType_NONE
	case 2:
		req.MemberID = 12345
	}
	g.pair.Invoke(name, method("Maintenance", "Alarm"), req, into[pb.AlarmResponse]())
}

func askHash(g *generator, name string) {
	g.pair.Invoke(name, method("Maintenance", "Hash"), &pb.HashRequest{}, into[pb.HashResponse]())
}

func askMemberList(g *generator, name string) {
	g.pair.Invoke(name, method("Cluster", "MemberList"),
		&pb.MemberListRequest{Linearizable: chance(g.Rand, 50)}, into[pb.MemberListResponse]())
}

func askAuthStatus(g *generator, name string) {
	g.pair.Invoke(name, method("Auth", "AuthStatus"), &pb.AuthStatusRequest{}, into[pb.AuthStatusResponse]())
}

func askHealth(g *generator, name string) {
	req := &grpc_health_v1.HealthCheckRequest{}
	if chance(g.Rand, 30) {
		req.Service = pick(g.Rand, []string{"etcdserverpb.KV", "nobody"})
	}
	g.pair.Invoke(name, "/grpc.health.v1.Health/Check", req, into[grpc_health_v1.HealthCheckResponse]())
}

func askUnknown(g *generator, name string) {
	m := pick(g.Rand, []string{
		"/etcdserverpb.KV/Nothing", "/etcdserverpb.Nobody/Range", "/nobody/nothing", "/etcdserverpb.KV/range",
		"/v3lockpb.Lock/Nothing", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
	})
	g.pair.Invoke(name, m, &pb.RangeRequest{Key: []byte("a")}, into[pb.RangeResponse]())
}

// askRangeInvalid breaks one rule of Range, as a unary call or as a stream.
func askRangeInvalid(g *generator, name string) {
	req := &pb.RangeRequest{Key: []byte("a"), Serializable: chance(g.Rand, 50)}
	switch g.IntN(6) {
	case 0:
		req.Key = nil
	case 1:
		req.Key, req.RangeEnd = nil, []byte{0}
	case 2:
		req.SortOrder = 3
	case 3:
		req.SortTarget = pick(g.Rand, []pb.RangeRequest_SortTarget{5, -1, 1 << 20})
	case 4:
		req.Revision = g.revision + 1
	case 5:
		req.Revision = max(g.compacted-1, 1)
	}
	g.pair.Invoke(name, method("KV", "Range"), req, into[pb.RangeResponse]())
}

func askRangeStreamInvalid(g *generator, name string) {
	req := &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}}
	switch g.IntN(8) {
	case 0:
		req.Key = nil
	case 1:
		req.SortOrder, req.SortTarget = pb.RangeRequest_DESCEND, pb.RangeRequest_KEY
	case 2:
		req.SortOrder, req.SortTarget = pb.RangeRequest_DESCEND, pb.RangeRequest_MOD
	case 3:
		req.SortOrder, req.SortTarget = pb.RangeRequest_ASCEND, pb.RangeRequest_VALUE
	case 4:
		req.MinModRevision = 1
	case 5:
		req.MaxCreateRevision = 5
	case 6:
		req.Revision = g.revision + 1
	case 7:
		req.SortTarget = 9
	}
	g.pair.Ask(name, method("KV", "RangeStream"), req, func(ctx context.Context, side *differ.Side) differ.Answer {
		stream, err := pb.NewKVClient(side.Conn).RangeStream(ctx, req)
		if err != nil {
			return differ.Answer{Status: status.Convert(err)}
		}
		return differ.Stream(stream.Recv)
	})
}

func askPutInvalid(g *generator, name string) {
	req := &pb.PutRequest{Key: g.keys.key(g.Rand), Value: []byte("x")}
	switch g.IntN(7) {
	case 0:
		req.Key = nil
	case 1:
		req.IgnoreValue = true
	case 2:
		req.IgnoreLease, req.Lease = true, 5
	case 3:
		req.Lease = 999_999
	case 4:
		req.Key, req.Value, req.IgnoreValue = []byte("never put"), nil, true
	case 5:
		req.Key, req.IgnoreLease = []byte("never put"), true
	case 6: // two faults: which one is told
		req.Key, req.IgnoreValue, req.IgnoreLease, req.Lease = nil, true, true, 7
	}
	g.pair.Invoke(name, method("KV", "Put"), req, into[pb.PutResponse]())
}

func askDeleteInvalid(g *generator, name string) {
	req := &pb.DeleteRangeRequest{}
	if chance(g.Rand, 50) {
		req.RangeEnd = []byte{0}
	}
	g.pair.Invoke(name, method("KV", "DeleteRange"), req, into[pb.DeleteRangeResponse]())
}

// askMetadata sends request metadata that the server must look at. What client
// libraries refuse to send is sent by TestRawCalls.
func askMetadata(g *generator, name string) {
	md := metadata.Pairs("hasleader", pick(g.Rand, []string{"true", "maybe", ""}), "client-api-version", "3.7")
	req := &pb.RangeRequest{Key: []byte("a")}
	g.pair.Ask(name, method("KV", "Range"), req, func(ctx context.Context, side *differ.Side) differ.Answer {
		resp, err := pb.NewKVClient(side.Conn).Range(metadata.NewOutgoingContext(ctx, md), req)
		if err != nil {
			return differ.Answer{Status: status.Convert(err)}
		}
		return differ.Answer{Messages: []proto.Message{resp}, Status: status.New(codes.OK, "")}
	})
}
