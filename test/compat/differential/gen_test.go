package differential

import (
	"math/rand/v2"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"milepost.dev/test/compat/differ"
)

// generator asks random questions that make sense at the moment: it follows
// the reference's revision, compactions and leases. All its choices come from
// one seeded source.
type generator struct {
	*rand.Rand
	pair *differ.Pair
	keys universe

	// revision is the store's current one, compacted the last compacted one.
	revision, compacted int64
	// mixed are the revisions of transactions that both put and delete.
	mixed map[int64]bool
	// leases are alive and have an id that the request chose. unnamed are
	// alive under an alias, because each server chose its own id: they are
	// never put on a key, whose record and hash would differ. gone have been
	// revoked.
	leases, unnamed, gone []int64
	aliases               int64

	watch *watchers
}

func newGenerator(pair *differ.Pair, seed uint64) *generator {
	g := &generator{
		Rand: rand.New(rand.NewPCG(seed, 3)), pair: pair, keys: newUniverse(),
		revision: 1, compacted: -1,
		mixed: map[int64]bool{},
	}
	g.watch = newWatchers(g)
	return g
}

// note takes over the revision of a header, if there is one.
func (g *generator) note(h *pb.ResponseHeader) {
	if h != nil && h.Revision > g.revision {
		g.revision = h.Revision
	}
}

// anyRevision is mostly readable, and sometimes 0, negative, compacted or in
// the future.
func (g *generator) anyRevision() int64 {
	floor := max(g.compacted, 1)
	switch g.IntN(20) {
	case 0:
		return -1 - g.Int64N(3)
	case 1:
		return g.revision + 1 + g.Int64N(3)
	case 2:
		return 1 + g.Int64N(floor)
	case 3:
		return floor
	case 4:
		return g.revision
	case 5, 6, 7, 8:
		return floor + g.Int64N(g.revision-floor+1)
	default:
		return 0
	}
}

// anyLease is mostly none, then a living one, then one that is not there.
func (g *generator) anyLease() int64 {
	switch n := g.IntN(100); {
	case n < 70 || len(g.leases) == 0:
		return 0
	case n < 96:
		return pick(g.Rand, g.leases)
	default:
		return 424242
	}
}

// kind is one sort of question. perMille is its share; the floors are how many
// of it, per thousand questions of the whole run, must succeed and must fail.
type kind struct {
	name             string
	perMille         int
	okFloor, noFloor float64
	ask              func(g *generator, name string)
}

func method(service, name string) string { return "/etcdserverpb." + service + "/" + name }

func into[M any, PM interface {
	*M
	proto.Message
}]() func() proto.Message {
	return func() proto.Message { return PM(new(M)) }
}

// onSide replaces lease aliases in a request by the ids this side has chosen.
func onSide[Q proto.Message](req Q, fix func(*differ.Side, Q)) func(*differ.Side) proto.Message {
	return func(side *differ.Side) proto.Message {
		own := proto.Clone(req).(Q)
		fix(side, own)
		return own
	}
}
