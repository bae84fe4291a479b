package cluster

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"milepost.dev/test/compat/harness"
	"milepost.dev/test/compat/waldir"
)

// lowSnapshots make a member that was away for a few hundred entries need one.
var lowSnapshots = []string{"--snapshot-count=150", fmt.Sprintf("--snapshot-catchup-entries=%d", keptBehind)}

// keptBehind is the number of entries that stay in the log below a snapshot.
const keptBehind = 50

// beyondLog is more requests than a log with lowSnapshots keeps.
const beyondLog = 500

// metric is the sum of one counter over its labels, as a member's page says.
func metric(ctx context.Context, t testing.TB, m *Member, name string) float64 {
	t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.ClientURL+"/metrics", nil)
	must(t, err)
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	defer resp.Body.Close()
	sum := 0.0
	for scan := bufio.NewScanner(resp.Body); scan.Scan(); {
		line := scan.Text()
		if !strings.HasPrefix(line, name+" ") && !strings.HasPrefix(line, name+"{") {
			continue
		}
		n, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		must(t, err)
		sum += n
	}
	return sum
}

const (
	snapshotsSent     = "etcd_network_snapshot_send_success"
	snapshotsReceived = "etcd_network_snapshot_receive_success"
)

// lead makes a member the leader.
func lead(ctx context.Context, t testing.TB, c *Cluster, m *Member) {
	t.Helper()
	for {
		leader, err := c.Leader(ctx)
		must(t, err)
		if leader == m {
			return
		}
		to, err := m.Status(ctx)
		must(t, err)
		conn, err := leader.Conn()
		must(t, err)
		short, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err = pb.NewMaintenanceClient(conn).MoveLeader(short, &pb.MoveLeaderRequest{TargetID: to.Header.MemberId})
		cancel()
		conn.Close()
		if err == nil {
			return
		}
		if stopped := pause(ctx); stopped != nil {
			t.Fatalf("%s does not hand over to %s: %v", leader, m, err)
		}
	}
}

// mix is a crowd on a cluster of both kinds.
type mix struct {
	t      *testing.T
	c      *Cluster
	crowd  *Crowd
	counts *tally
	seed   uint64
}

func newMix(t *testing.T, c *Cluster, counts *tally) *mix {
	t.Helper()
	m := &mix{t: t, c: c, counts: counts, seed: uint64(harness.IntEnv(t, "COMPAT_SEED", int(time.Now().UnixNano()))), crowd: NewCrowd(c)}
	t.Logf("seed %d", m.seed)
	t.Cleanup(m.crowd.Close)
	return m
}

// write lets the crowd write, and compares the members afterwards.
func (x *mix) write(ctx context.Context, requests int) {
	x.t.Helper()
	x.seed++
	must(x.t, x.crowd.Write(ctx, requests, x.seed))
	x.alike(ctx)
}

func (x *mix) alike(ctx context.Context) {
	x.t.Helper()
	must(x.t, x.c.WaitReady(ctx))
	var revision int64
	var last error
	// Leases expire between one member's answer and the next one's.
	for range 20 {
		if revision, last = x.c.Likeness(ctx); last == nil {
			x.counts.add("members found alike", len(x.c.Running()))
			x.t.Logf("%d members alike at revision %d after %d requests", len(x.c.Running()), revision, x.crowd.Done())
			return
		}
		<-time.After(200 * time.Millisecond)
	}
	x.t.Fatalf("after %d requests the members differ: %v", x.crowd.Done(), last)
}

var savedSnapshot = regexp.MustCompile(`"saved snapshot to disk".*"snapshot-index":(\d+)`)

// snapshotIndex is the newest snapshot that a member has made; 0: none.
func snapshotIndex(m *Member) uint64 {
	newest := uint64(0)
	for _, found := range savedSnapshot.FindAllStringSubmatch(m.Log(), -1) {
		if index, err := strconv.ParseUint(found[1], 10, 64); err == nil {
			newest = max(newest, index)
		}
	}
	return newest
}

// awayForSnapshot ends a member, lets the others write beyond what the log
// keeps, and starts it again: from then on it stands on a snapshot.
func (x *mix) awayForSnapshot(ctx context.Context, m *Member, leader *Member) {
	x.t.Helper()
	t := x.t
	lead(ctx, t, x.c, leader)
	status, err := leader.Status(ctx)
	must(t, err)
	m.Kill()
	x.write(ctx, beyondLog)
	lead(ctx, t, x.c, leader)
	// Some members make a snapshot no more than once a second, however much is written.
	for snapshotIndex(leader) <= status.RaftIndex+keptBehind {
		x.write(ctx, 50)
		lead(ctx, t, x.c, leader)
	}
	sent := metric(ctx, t, leader, snapshotsSent)
	must(t, m.Start())
	must(t, m.WaitReady(ctx))
	x.alike(ctx)
	if metric(ctx, t, leader, snapshotsSent) == sent && metric(ctx, t, m, snapshotsReceived) == 0 {
		t.Errorf("%s came back without a snapshot of %s", m, leader)
	}
	x.counts.add(fmt.Sprintf("snapshot from %s to %s", leader.Binary.Name, m.Binary.Name), 1)
}

// crowdKinds must all have succeeded.
var crowdKinds = []string{
	"put", "put with a lease", "put that keeps its lease", "put that keeps its value", "delete", "delete of a range",
	"transaction", "transaction in a transaction", "lease grant", "lease revoke", "lease keep-alive", "compaction",
	"alarm disarmed",
}

func (x *mix) finish(ctx context.Context) {
	x.t.Helper()
	for kind, n := range x.crowd.Counts() {
		x.counts.add(kind, n)
	}
	expired, err := x.crowd.Expired(ctx)
	must(x.t, err)
	x.counts.add("leases expired", expired)
	x.sameLogs(ctx)
}

// sameLogs compares the logs of all members, entry by entry, where they
// overlap: each begins at its own last snapshot.
func (x *mix) sameLogs(ctx context.Context) {
	x.t.Helper()
	t := x.t
	client, err := x.c.Client()
	must(t, err)
	defer client.Close()
	compared := 0
	for compared < 60 {
		for range 40 {
			_, err := client.Put(ctx, "k/last", "")
			must(t, err)
		}
		must(t, x.c.WaitReady(ctx))
		compared += x.compareLogs()
	}
	x.counts.add("log entries compared", compared)
}

func (x *mix) compareLogs() int {
	x.t.Helper()
	t := x.t
	entries := map[uint64]waldir.Entry{}
	compared := 0
	for _, m := range x.c.Running() {
		log, err := waldir.Read(filepath.Join(m.Dir, "member", "wal"), filepath.Join(m.Dir, "member", "snap"))
		must(t, err)
		if log.Error != "" {
			t.Fatalf("etcd cannot read the log of %s: %s", m, log.Error)
		}
		for _, e := range log.Entries {
			if e.Index > log.HardState.Commit {
				continue
			}
			if other, there := entries[e.Index]; there && other != e {
				t.Fatalf("entry %d of %s is %+v, of another member %+v", e.Index, m, e, other)
			} else if there {
				compared++
			}
			entries[e.Index] = e
		}
	}
	return compared
}

// TestTwoEtcdsAndOneOfOurs: formed together, ours follows and leads, each kind
// is killed and comes back, each kind sends a snapshot to the other, and five
// thousand random writes later all three hold the same.
func TestTwoEtcdsAndOneOfOurs(t *testing.T) {
	parallel(t)
	ctx := deadline(t, 4*time.Minute)
	etcd := harness.Reference(t)
	counts := newTally(t, append([]string{
		"members found alike", "log entries compared", "leases expired", "ours killed", "etcd killed",
		"snapshot from reference to " + harness.Subject(t).Name, "snapshot from " + harness.Subject(t).Name + " to reference",
	}, crowdKinds...)...)
	c := started(t, []harness.Binary{etcd, etcd, harness.Subject(t)}, lowSnapshots...)
	first, second, ours := c.Members()[0], c.Members()[1], c.Members()[2]
	x := newMix(t, c, counts)

	lead(ctx, t, c, first) // ours follows
	x.write(ctx, 900)
	x.awayForSnapshot(ctx, ours, first)
	counts.add("ours killed", 1)
	lead(ctx, t, c, ours) // ours leads
	x.write(ctx, 900)
	x.awayForSnapshot(ctx, second, ours)
	counts.add("etcd killed", 1)
	lead(ctx, t, c, ours)
	ours.Kill() // in the lead
	counts.add("ours killed", 1)
	x.write(ctx, 300)
	must(t, ours.Start())
	x.write(ctx, 600)
	lead(ctx, t, c, second)
	second.Kill()
	counts.add("etcd killed", 1)
	x.write(ctx, 300)
	must(t, second.Start())
	must(t, second.WaitReady(ctx))
	x.write(ctx, max(300, 5000-x.crowd.Done()))
	x.finish(ctx)
}

// TestJoining: one member of each kind joins two of the other by member add,
// so late that it needs a snapshot, is promoted from a learner or a voter at
// once, follows, leads, and holds the same as they do.
func TestJoining(t *testing.T) {
	parallel(t)
	etcd, ours := harness.Reference(t), harness.Subject(t)
	for _, trial := range []struct {
		name    string
		two     harness.Binary
		joining harness.Binary
		learner bool
	}{
		{"ours joins two etcds as a voter", etcd, ours, false},
		{"ours joins two etcds as a learner", etcd, ours, true},
		{"an etcd joins two of ours", ours, etcd, true},
	} {
		t.Run(trial.name, func(t *testing.T) {
			ctx := deadline(t, 2*time.Minute)
			counts := newTally(t, "members found alike", "log entries compared", "snapshot received by the joining member")
			c := started(t, []harness.Binary{trial.two, trial.two}, lowSnapshots...)
			x := newMix(t, c, counts)
			x.write(ctx, beyondLog)
			m := join(ctx, t, c, trial.joining, trial.learner)
			must(t, m.WaitReady(ctx))
			if trial.learner {
				promote(ctx, t, c, m)
			}
			must(t, m.WaitReady(ctx))
			counts.add("snapshot received by the joining member", int(metric(ctx, t, m, snapshotsReceived)))
			x.write(ctx, 200)
			lead(ctx, t, c, m)
			x.write(ctx, 200)
			x.sameLogs(ctx)
		})
	}
}

// join adds a new member and starts it. Etcd refuses while it does not yet
// know its members for long enough; then it is asked again.
func join(ctx context.Context, t testing.TB, c *Cluster, bin harness.Binary, learner bool) *Member {
	t.Helper()
	others := c.Running()
	m, err := c.Prepare(bin)
	must(t, err)
	client, err := newClient(endpoints(others))
	must(t, err)
	defer client.Close()
	add := client.MemberAdd
	if learner {
		add = client.MemberAddAsLearner
	}
	for {
		if _, err = add(ctx, []string{m.PeerURL}); err == nil {
			break
		}
		if stopped := pause(ctx); stopped != nil {
			t.Fatalf("%s cannot be added: %v", m, err)
		}
	}
	c.Join(m, others...)
	must(t, m.Start())
	return m
}

// promote makes a voter of a learner, as soon as it is ready.
func promote(ctx context.Context, t testing.TB, c *Cluster, m *Member) {
	t.Helper()
	client, err := newClient(endpoints(c.Running()))
	must(t, err)
	defer client.Close()
	id := memberID(ctx, t, client, m)
	for {
		if _, err = client.MemberPromote(ctx, id); err == nil {
			return
		}
		if stopped := pause(ctx); stopped != nil {
			t.Fatalf("%s is not promoted: %v", m, err)
		}
	}
}

func memberID(ctx context.Context, t testing.TB, client *clientv3.Client, m *Member) uint64 {
	t.Helper()
	list, err := client.MemberList(ctx)
	must(t, err)
	for _, known := range list.Members {
		if len(known.PeerURLs) == 1 && known.PeerURLs[0] == m.PeerURL {
			return known.ID
		}
	}
	t.Fatalf("no member has the URL %s of %s: %v", m.PeerURL, m, list.Members)
	return 0
}
