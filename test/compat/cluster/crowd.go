package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Crowd writes at random, all that can be written, through any member that
// answers. It does not judge: what members have in the end is compared.
type Crowd struct {
	cluster *Cluster

	mu      sync.Mutex
	counts  map[string]int
	leases  []clientv3.LeaseID
	granted int
	revoked int
	clients map[int]*clientv3.Client
	compact int64
}

// NewCrowd makes one; Close ends its clients.
func NewCrowd(c *Cluster) *Crowd {
	return &Crowd{cluster: c, counts: map[string]int{}, clients: map[int]*clientv3.Client{}}
}

// Close ends its clients.
func (w *Crowd) Close() {
	for _, client := range w.clients {
		client.Close()
	}
}

// Counts is how often each kind was tried and came out in each way.
func (w *Crowd) Counts() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[string]int{}
	for k, n := range w.counts {
		out[k] = n
	}
	return out
}

// Done is how many requests succeeded.
func (w *Crowd) Done() int {
	n := 0
	for kind, count := range w.Counts() {
		if !strings.HasPrefix(kind, "refused") {
			n += count
		}
	}
	return n
}

// Write lets so many requests succeed, from several clients at once.
func (w *Crowd) Write(ctx context.Context, requests int, seed uint64) error {
	const clients = 8
	want := int64(w.Done() + requests)
	var done atomic.Int64
	done.Store(want - int64(requests))
	var all sync.WaitGroup
	for n := range clients {
		all.Add(1)
		go func() {
			defer all.Done()
			random := rand.New(rand.NewPCG(seed, uint64(n)))
			for done.Load() < want && ctx.Err() == nil {
				if w.one(ctx, random) {
					done.Add(1)
				}
			}
		}()
	}
	all.Wait()
	return ctx.Err()
}

func (w *Crowd) client(random *rand.Rand) *clientv3.Client {
	running := w.cluster.Running()
	if len(running) == 0 {
		return nil
	}
	m := running[random.IntN(len(running))]
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.clients[m.Number] == nil {
		client, err := m.Client()
		if err != nil {
			return nil
		}
		w.clients[m.Number] = client
	}
	return w.clients[m.Number]
}

func (w *Crowd) lease(random *rand.Rand) clientv3.LeaseID {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.leases) == 0 {
		return 0
	}
	return w.leases[random.IntN(len(w.leases))]
}

func (w *Crowd) one(ctx context.Context, random *rand.Rand) bool {
	client := w.client(random)
	if client == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	kind, err := w.do(ctx, client, random)
	if err != nil {
		kind = "refused: " + brief(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts[kind]++
	return err == nil
}

func brief(err error) string {
	text := err.Error()
	for _, known := range []string{"connection refused", "connection reset", "EOF", "deadline exceeded", "closing"} {
		if strings.Contains(text, known) {
			return known
		}
	}
	return text[:min(80, len(text))]
}

func key(random *rand.Rand) string { return fmt.Sprintf("k/%03d", random.IntN(300)) }

func value(random *rand.Rand) string {
	size := random.IntN(600)
	if random.IntN(100) == 0 {
		size = 40_000
	}
	return strings.Repeat(string(rune('a'+random.IntN(26))), size)
}

func (w *Crowd) do(ctx context.Context, client *clientv3.Client, random *rand.Rand) (string, error) {
	switch n := random.IntN(1000); {
	case n < 380:
		_, err := client.Put(ctx, key(random), value(random))
		return "put", err
	case n < 470:
		_, err := client.Put(ctx, key(random), value(random), clientv3.WithLease(w.lease(random)), clientv3.WithPrevKV())
		return "put with a lease", err
	case n < 500:
		_, err := client.Put(ctx, key(random), value(random), clientv3.WithIgnoreLease())
		return "put that keeps its lease", err
	case n < 530:
		_, err := client.Put(ctx, key(random), "", clientv3.WithIgnoreValue())
		return "put that keeps its value", err
	case n < 620:
		_, err := client.Delete(ctx, key(random))
		return "delete", err
	case n < 650:
		from := random.IntN(290)
		_, err := client.Delete(ctx, fmt.Sprintf("k/%03d", from), clientv3.WithRange(fmt.Sprintf("k/%03d", from+10)), clientv3.WithPrevKV())
		return "delete of a range", err
	case n < 850:
		_, err := w.txn(client.Txn(ctx), random).Commit()
		return "transaction", err
	case n < 900:
		lease, err := client.Grant(ctx, 1+random.Int64N(3))
		if err == nil {
			w.mu.Lock()
			w.granted++
			w.leases = append(w.leases[max(0, len(w.leases)-15):], lease.ID)
			w.mu.Unlock()
		}
		return "lease grant", err
	case n < 915:
		_, err := client.Revoke(ctx, w.lease(random))
		if err == nil {
			w.mu.Lock()
			w.revoked++
			w.mu.Unlock()
		}
		return "lease revoke", err
	case n < 950:
		_, err := client.KeepAliveOnce(ctx, w.lease(random))
		return "lease keep-alive", err
	case n < 965:
		return w.squeeze(ctx, client, random)
	case n < 975:
		_, err := client.AlarmDisarm(ctx, &clientv3.AlarmMember{})
		return "alarm disarmed", err
	default:
		_, err := client.Do(ctx, clientv3.OpTxn(nil, []clientv3.Op{
			clientv3.OpPut(key(random), value(random)), clientv3.OpDelete("y", clientv3.WithPrefix()),
			clientv3.OpTxn([]clientv3.Cmp{clientv3.Compare(clientv3.Version(key(random)), ">", 0)},
				[]clientv3.Op{clientv3.OpPut("z/1", value(random))}, []clientv3.Op{clientv3.OpPut("z/2", value(random))}),
		}, nil))
		return "transaction in a transaction", err
	}
}

func (w *Crowd) txn(txn clientv3.Txn, random *rand.Rand) clientv3.Txn {
	at := key(random)
	compares := []clientv3.Cmp{
		clientv3.Compare(clientv3.CreateRevision(at), "=", 0),
		clientv3.Compare(clientv3.Value(at), "<", "m"),
		clientv3.Compare(clientv3.ModRevision(at), ">", random.Int64N(3000)),
		clientv3.Compare(clientv3.LeaseValue(at), "=", 0),
		clientv3.Compare(clientv3.Version("k/"), "<", 3).WithPrefix(),
	}
	return txn.If(compares[random.IntN(len(compares))]).
		Then(clientv3.OpPut(at, value(random)), clientv3.OpGet("k/0", clientv3.WithPrefix(), clientv3.WithCountOnly())).
		Else(clientv3.OpDelete(at), clientv3.OpPut(key(random)+"/x", value(random), clientv3.WithLease(w.lease(random))))
}

func (w *Crowd) squeeze(ctx context.Context, client *clientv3.Client, random *rand.Rand) (string, error) {
	now, err := client.Get(ctx, "\x00", clientv3.WithSerializable())
	if err != nil {
		return "", err
	}
	var opts []clientv3.CompactOption
	if random.IntN(2) == 0 {
		opts = append(opts, clientv3.WithCompactPhysical())
	}
	_, err = client.Compact(ctx, max(1, now.Header.Revision-random.Int64N(80)), opts...)
	return "compaction", err
}

// Expired is how many leases ended by themselves, as the cluster says now.
func (w *Crowd) Expired(ctx context.Context) (int, error) {
	client, err := w.cluster.Client()
	if err != nil {
		return 0, err
	}
	defer client.Close()
	left, err := client.Leases(ctx)
	if err != nil {
		return 0, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.granted - w.revoked - len(left.Leases), nil
}

// Likeness compares everything that a client can read from each running
// member by itself: hashes, all keys, leases, members. (Users and roles are left out: the server
// under test does not know them yet.)
func (c *Cluster) Likeness(ctx context.Context) (int64, error) {
	revision, err := c.SameHashes(ctx)
	if err != nil {
		return 0, err
	}
	var first string
	for i, m := range c.Running() {
		said, err := likeness(ctx, m, revision)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", m, err)
		}
		if i == 0 {
			first = said
		} else if said != first {
			a, b := firstDifference(first, said)
			return 0, fmt.Errorf("at revision %d %s says\n %.600s\nand %s says\n %.600s", revision, c.Running()[0], a, m, b)
		}
	}
	return revision, nil
}

func firstDifference(a, b string) (string, string) {
	as, bs := strings.Split(a, "\n"), strings.Split(b, "\n")
	for i := range min(len(as), len(bs)) {
		if as[i] != bs[i] {
			return as[i], bs[i]
		}
	}
	return fmt.Sprintf("%d lines", len(as)), fmt.Sprintf("%d lines", len(bs))
}

func likeness(ctx context.Context, m *Member, revision int64) (string, error) {
	conn, err := m.Conn()
	if err != nil {
		return "", err
	}
	defer conn.Close()
	var out strings.Builder
	all, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Serializable: true, Revision: revision})
	if err != nil {
		return "", err
	}
	for _, kv := range all.Kvs {
		fmt.Fprintf(&out, "%s mod %d create %d version %d lease %x value %.20q (%d bytes)\n",
			kv.Key, kv.ModRevision, kv.CreateRevision, kv.Version, kv.Lease, kv.Value, len(kv.Value))
	}
	members, err := pb.NewClusterClient(conn).MemberList(ctx, &pb.MemberListRequest{Linearizable: true})
	if err != nil {
		return "", err
	}
	for _, m := range members.Members {
		fmt.Fprintf(&out, "member %x %s %v %v learner %v\n", m.ID, m.Name, m.PeerURLs, m.ClientURLs, m.IsLearner)
	}
	leases, err := pb.NewLeaseClient(conn).LeaseLeases(ctx, &pb.LeaseLeasesRequest{})
	if err != nil {
		return "", err
	}
	var ids []string
	for _, l := range leases.Leases {
		keys, err := pb.NewLeaseClient(conn).LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: l.ID, Keys: true})
		if err != nil {
			return "", err
		}
		slices.SortFunc(keys.Keys, func(a, b []byte) int { return strings.Compare(string(a), string(b)) })
		ids = append(ids, fmt.Sprintf("lease %x of %d s: %q\n", l.ID, keys.GrantedTTL, keys.Keys))
	}
	slices.Sort(ids)
	out.WriteString(strings.Join(ids, ""))
	return out.String(), nil
}
