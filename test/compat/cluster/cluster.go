package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"milepost.dev/test/compat/harness"
)

// Cluster is a number of members with a network between them.
type Cluster struct {
	Net *Network
	Dir string

	args []string // flags of all members

	mu      sync.Mutex
	members []*Member
}

// New prepares a cluster of one member per binary, and starts nothing. args
// are flags for all of them.
func New(dir string, bins []harness.Binary, args ...string) (*Cluster, error) {
	c := &Cluster{Dir: dir, args: append([]string{"--log-level=info"}, args...)}
	c.Net = NewNetwork(c.pids)
	for _, bin := range bins {
		if _, err := c.Prepare(bin); err != nil {
			c.Close()
			return nil, err
		}
	}
	for _, m := range c.Members() {
		m.start = []string{"--initial-cluster=" + c.InitialCluster(c.Members()...), "--initial-cluster-state=new"}
	}
	return c, nil
}

// Prepare makes a further member with a door, not yet part of anything.
func (c *Cluster) Prepare(bin harness.Binary) (*Member, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	number := len(c.members)
	client, err := harness.Reserve()
	if err != nil {
		return nil, err
	}
	door, err := c.Net.Door(number)
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("m%d", number)
	home := filepath.Join(c.Dir, name)
	if err := os.MkdirAll(home, 0o755); err != nil {
		return nil, err
	}
	m := &Member{
		Number: number, Name: name, Binary: bin, Dir: filepath.Join(home, "data"),
		ClientURL: "http://" + client, PeerURL: c.peerScheme() + door, cluster: c, home: home,
	}
	c.members = append(c.members, m)
	return m, nil
}

// peerScheme is how members speak to each other: by the flags of all of them.
func (c *Cluster) peerScheme() string {
	for _, arg := range c.args {
		if strings.HasPrefix(arg, "--peer-cert-file=") || arg == "--peer-auto-tls=true" {
			return "https://"
		}
	}
	return "http://"
}

// Join gives a member the flags to join the members that are there.
func (c *Cluster) Join(m *Member, others ...*Member) {
	m.start = []string{
		"--initial-cluster=" + c.InitialCluster(append(others, m)...), "--initial-cluster-state=existing",
	}
}

// InitialCluster is the value of --initial-cluster that names these members.
func (c *Cluster) InitialCluster(members ...*Member) string {
	var parts []string
	for _, m := range members {
		parts = append(parts, m.Name+"="+m.PeerURL)
	}
	return strings.Join(parts, ",")
}

// Members are all that were ever prepared, in order.
func (c *Cluster) Members() []*Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]*Member(nil), c.members...)
}

// Running are the members whose process runs.
func (c *Cluster) Running() []*Member {
	var out []*Member
	for _, m := range c.Members() {
		if m.Running() {
			out = append(out, m)
		}
	}
	return out
}

func (c *Cluster) pids() map[int]int {
	out := map[int]int{}
	for _, m := range c.Members() {
		if pid := m.PID(); pid != 0 {
			out[pid] = m.Number
		}
	}
	return out
}

// Start starts all members and waits until each has answered.
func (c *Cluster) Start(ctx context.Context) error {
	for _, m := range c.Members() {
		if err := m.Start(); err != nil {
			return err
		}
	}
	return c.WaitReady(ctx)
}

// WaitReady waits until every running member has answered.
func (c *Cluster) WaitReady(ctx context.Context) error {
	for _, m := range c.Running() {
		if err := m.WaitReady(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Close kills all members and closes the network.
func (c *Cluster) Close() {
	for _, m := range c.Members() {
		m.Kill()
	}
	c.Net.Close()
}

// Client is etcd's official client of all members together.
func (c *Cluster) Client() (*clientv3.Client, error) {
	return newClient(endpoints(c.Members()))
}

func endpoints(members []*Member) []string {
	var out []string
	for _, m := range members {
		out = append(out, m.ClientURL)
	}
	return out
}

// Leader asks the running members until one says that it leads itself and no
// other one says so for a later term.
func (c *Cluster) Leader(ctx context.Context) (*Member, error) {
	for {
		var leader *Member
		term := uint64(0)
		for _, m := range c.Running() {
			status, err := m.Status(ctx)
			if err != nil || status.RaftTerm < term {
				continue
			}
			if status.RaftTerm > term {
				leader, term = nil, status.RaftTerm
			}
			if status.Leader == status.Header.MemberId {
				leader = m
			}
		}
		if leader != nil {
			return leader, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.New("no member leads")
		case <-time.After(pollEvery):
		}
	}
}

// Isolate holds or cuts everything between one member and all others.
func (c *Cluster) Isolate(m *Member) { c.Split([]*Member{m}) }

// Split cuts the network between these members and the rest.
func (c *Cluster) Split(side []*Member) {
	inside := map[int]bool{}
	for _, m := range side {
		inside[m.Number] = true
	}
	for _, a := range c.Members() {
		for _, b := range c.Members() {
			if inside[a.Number] && !inside[b.Number] {
				c.Net.Cut(a.Number, b.Number)
			}
		}
	}
}

// SetAll makes a rule for every direction between two members.
func (c *Cluster) SetAll(rule Rule) {
	for _, a := range c.Members() {
		for _, b := range c.Members() {
			if a != b {
				c.Net.Set(a.Number, b.Number, rule)
			}
		}
	}
}

// Silence makes a hole in everything that one member sends to the others, or
// with inward in everything that is sent to it.
func (c *Cluster) Silence(m *Member, inward bool) {
	for _, other := range c.Members() {
		if other == m {
			continue
		}
		from, to := m.Number, other.Number
		if inward {
			from, to = to, from
		}
		c.Net.Set(from, to, Rule{Hole: true})
	}
}

// Hashes are the members' HashKV at one revision, once all have reached it.
func (c *Cluster) Hashes(ctx context.Context, revision int64, members ...*Member) ([]*pb.HashKVResponse, error) {
	var out []*pb.HashKVResponse
	for _, m := range members {
		conn, err := m.Conn()
		if err != nil {
			return nil, err
		}
		for {
			var hash *pb.HashKVResponse
			hash, err = pb.NewMaintenanceClient(conn).HashKV(ctx, &pb.HashKVRequest{Revision: revision})
			if err == nil {
				out = append(out, hash)
				break
			}
			// A follower may still be behind that revision.
			select {
			case <-ctx.Done():
			case <-time.After(pollEvery):
			}
			if ctx.Err() != nil {
				break
			}
		}
		conn.Close()
		if err != nil {
			return nil, fmt.Errorf("HashKV of %s at revision %d: %w", m, revision, err)
		}
	}
	return out, nil
}

// SameHashes compares HashKV of all running members at the newest revision
// that a linearizable read knows, and returns that revision.
func (c *Cluster) SameHashes(ctx context.Context) (int64, error) {
	client, err := c.Client()
	if err != nil {
		return 0, err
	}
	defer client.Close()
	now, err := client.Get(ctx, "\x00")
	if err != nil {
		return 0, fmt.Errorf("a linearizable read: %w", err)
	}
	members := c.Running()
	hashes, err := c.Hashes(ctx, now.Header.Revision, members...)
	if err != nil {
		return 0, err
	}
	for i, h := range hashes {
		if h.Hash != hashes[0].Hash || h.CompactRevision != hashes[0].CompactRevision || h.HashRevision != hashes[0].HashRevision {
			return 0, fmt.Errorf("at revision %d %s has hash %d (compacted at %d), and %s has %d (compacted at %d)",
				now.Header.Revision, members[0], hashes[0].Hash, hashes[0].CompactRevision, members[i], h.Hash, h.CompactRevision)
		}
	}
	return now.Header.Revision, nil
}

// pause is the moment between two looks at another process.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(pollEvery):
		return nil
	}
}
