package differential

import (
	"bytes"
	"context"
	"slices"
	"sort"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"milepost.dev/test/compat/differ"
)

// Leases live long here: expiry has tests of its own, and nothing may expire
// while the two servers are asked in step.
const longTTL = 100_000

func askLeaseGrant(g *generator, name string) {
	req := &pb.LeaseGrantRequest{TTL: longTTL + g.Int64N(1000)}
	switch g.IntN(12) {
	case 0: // taken already
		if len(g.leases) > 0 {
			req.ID = pick(g.Rand, g.leases)
		}
	case 1:
		req.TTL, req.ID = 9_000_000_001, 1+g.Int64N(1<<20)
	case 2:
		req.TTL, req.ID = 9_000_000_000, 1+g.Int64N(1<<20)
	case 3:
		req.ID = -1 - g.Int64N(1<<40)
	case 4, 5: // the server chooses
	default:
		req.ID = 1 + g.Int64N(1<<62)
	}
	if req.ID == 0 {
		g.grantUnnamed(name, req)
		return
	}
	a := g.pair.InvokeEach(name, method("Lease", "LeaseGrant"),
		onSide(req, func(side *differ.Side, own *pb.LeaseGrantRequest) { own.ID = side.LeaseOf(own.ID) }),
		into[pb.LeaseGrantResponse](), nil)
	if a.OK() {
		g.leases = append(g.leases, req.ID)
	}
}

// grantUnnamed lets each server choose an id and gives the two a common name.
func (g *generator) grantUnnamed(name string, req *pb.LeaseGrantRequest) {
	g.aliases--
	alias := g.aliases - 1<<50
	a := g.pair.Ask(name, method("Lease", "LeaseGrant"), req, func(ctx context.Context, side *differ.Side) differ.Answer {
		resp, err := pb.NewLeaseClient(side.Conn).LeaseGrant(ctx, req)
		if err != nil {
			return differ.Answer{Status: status.Convert(err)}
		}
		if resp.ID > 0 { // a chosen id is positive; another would stand out unmasked
			side.AliasLease(resp.ID, alias)
		}
		return differ.Answer{Messages: []proto.Message{resp}, Status: status.Convert(nil)}
	})
	if a.OK() {
		g.unnamed = append(g.unnamed, alias)
	}
}

// someLease is mostly alive, sometimes revoked, sometimes never granted.
func (g *generator) someLease() int64 {
	switch n := g.IntN(10); {
	case n < 5 && len(g.leases) > 0:
		return pick(g.Rand, g.leases)
	case n < 7 && len(g.unnamed) > 0:
		return pick(g.Rand, g.unnamed)
	case n < 9 && len(g.gone) > 0:
		return pick(g.Rand, g.gone)
	default:
		return pick(g.Rand, []int64{0, 1<<63 - 1, -5, 777_777})
	}
}

func askLeaseRevoke(g *generator, name string) {
	id := g.someLease()
	if len(g.leases) < 5 && chance(g.Rand, 60) {
		id = 777_777
	}
	a := g.pair.InvokeEach(name, method("Lease", "LeaseRevoke"),
		onSide(&pb.LeaseRevokeRequest{ID: id}, func(side *differ.Side, own *pb.LeaseRevokeRequest) { own.ID = side.LeaseOf(own.ID) }),
		into[pb.LeaseRevokeResponse](), nil)
	if a.OK() {
		g.note(a.Messages[0].(*pb.LeaseRevokeResponse).Header)
		isRevoked := func(l int64) bool { return l == id }
		g.leases = slices.DeleteFunc(g.leases, isRevoked)
		g.unnamed = slices.DeleteFunc(g.unnamed, isRevoked)
		g.gone = append(g.gone, id)
	}
}

func askLeaseTimeToLive(g *generator, name string) {
	req := &pb.LeaseTimeToLiveRequest{ID: g.someLease(), Keys: chance(g.Rand, 70)}
	g.pair.InvokeEach(name, method("Lease", "LeaseTimeToLive"),
		onSide(req, func(side *differ.Side, own *pb.LeaseTimeToLiveRequest) { own.ID = side.LeaseOf(own.ID) }),
		into[pb.LeaseTimeToLiveResponse](),
		func(_, resp proto.Message) { // etcd lists the keys in no order
			keys := resp.(*pb.LeaseTimeToLiveResponse).Keys
			sort.Slice(keys, func(i, j int) bool { return bytes.Compare(keys[i], keys[j]) < 0 })
		})
}

// askLeaseLeases compares the list as a set; its order has a test of its own.
func askLeaseLeases(g *generator, name string) {
	g.pair.Ask(name, method("Lease", "LeaseLeases"), &pb.LeaseLeasesRequest{}, func(ctx context.Context, side *differ.Side) differ.Answer {
		resp, err := pb.NewLeaseClient(side.Conn).LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
		if err != nil {
			return differ.Answer{Status: status.Convert(err)}
		}
		masked := side.Masked(resp).(*pb.LeaseLeasesResponse)
		sort.Slice(masked.Leases, func(i, j int) bool { return masked.Leases[i].ID < masked.Leases[j].ID })
		return differ.Answer{Messages: []proto.Message{masked}, Status: status.Convert(nil)}
	})
}

// askLeaseKeepAlive sends a few ids over one stream, half-closes it, and
// expects one answer each and then the end.
func askLeaseKeepAlive(g *generator, name string) {
	ids := make([]int64, g.IntN(5))
	for i := range ids {
		ids[i] = g.someLease()
	}
	g.pair.Ask(name, method("Lease", "LeaseKeepAlive"), nil, func(ctx context.Context, side *differ.Side) differ.Answer {
		stream, err := pb.NewLeaseClient(side.Conn).LeaseKeepAlive(ctx)
		if err != nil {
			return differ.Answer{Status: status.Convert(err)}
		}
		for _, id := range ids {
			if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: side.LeaseOf(id)}); err != nil {
				break // the reason comes with Recv
			}
		}
		if err := stream.CloseSend(); err != nil {
			return differ.Answer{Status: status.Convert(err)}
		}
		return differ.Stream(stream.Recv)
	})
}
