package ctl

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"milepost.dev/test/compat/cluster"
	"milepost.dev/test/compat/harness"
)

// many is one tool in front of three members, and a fourth that joins.
//
// All pairs have the same members one after the other, on the same ports: ids
// come from URLs, so that they are equal without a mask. Only the fourth's id
// comes from the clock.
type many struct {
	*pair
	t       *testing.T
	all     *cluster.Cluster
	joiner  *cluster.Member
	story   []chapter
	nothing int // lines that are run and not compared
}

// chapter is one line and what came of it.
type chapter struct {
	args   []string
	result result
}

// founders are the three.
func (m *many) founders() []*cluster.Member { return m.all.Members()[:3] }

func (m *many) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatalf("%s: %v", m.name, err)
	}
}

// form starts three new members of one kind, led by the first one, and waits
// until they have settled the cluster's version.
func (m *many) form(ctx context.Context, bin harness.Binary) {
	m.t.Helper()
	for _, member := range m.all.Members() {
		member.Kill()
		m.must(member.Wipe())
		member.Binary = bin
	}
	for _, member := range m.founders() {
		m.must(member.Start())
	}
	m.must(m.all.WaitReady(ctx))
	m.versionIs(ctx, "3.7.0", m.founders())
	m.lead(ctx, m.founders()[0])
}

// versionIs waits until these members store data in a version's format.
func (m *many) versionIs(ctx context.Context, version string, members []*cluster.Member) {
	m.t.Helper()
	for _, member := range members {
		harness.Eventually(m.t, time.Minute, func() error {
			status, err := member.Status(ctx)
			if err != nil {
				return err
			}
			resp, err := http.Get(member.ClientURL + "/version")
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			var versions struct{ Etcdcluster string }
			if err := json.NewDecoder(resp.Body).Decode(&versions); err != nil {
				return err
			}
			if versions.Etcdcluster != version || status.StorageVersion != version {
				return fmt.Errorf("%s: cluster version %s, storage version %s, wanted %s", member, versions.Etcdcluster, status.StorageVersion, version)
			}
			return nil
		})
	}
}

// lead gives leadership to one member and waits until all say so.
func (m *many) lead(ctx context.Context, to *cluster.Member) {
	m.t.Helper()
	status, err := to.Status(ctx)
	m.must(err)
	leader, err := m.all.Leader(ctx)
	m.must(err)
	if leader != to {
		client, err := leader.Client()
		m.must(err)
		defer client.Close()
		_, err = client.MoveLeader(ctx, status.Header.MemberId)
		m.must(err)
	}
	m.followed(ctx, to)
}

// followed waits until all say that this one leads.
func (m *many) followed(ctx context.Context, leader *cluster.Member) {
	m.t.Helper()
	harness.Eventually(m.t, 30*time.Second, func() error {
		own, err := leader.Status(ctx)
		if err != nil {
			return err
		}
		for _, member := range m.all.Running() {
			if status, err := member.Status(ctx); err != nil || status.Leader != own.Header.MemberId {
				return fmt.Errorf("%s does not follow %s: %v", member, leader, err)
			}
		}
		return nil
	})
}

// id is how the tool writes a member's.
func (m *many) id(ctx context.Context, member *cluster.Member) string {
	m.t.Helper()
	status, err := member.Status(ctx)
	m.must(err)
	return fmt.Sprintf("%x", status.Header.MemberId)
}

// endpoints is a step that asks these members.
func endpoints(members []*cluster.Member) step {
	var urls []string
	for _, member := range members {
		urls = append(urls, strings.TrimPrefix(member.ClientURL, "http://"))
	}
	return step{elsewhere: true, squeezed: true, unordered: true, env: []string{"ETCDCTL_ENDPOINTS=" + strings.Join(urls, ",")}}
}

// say runs a line that asks these members, and keeps it for the comparison.
func (m *many) say(members []*cluster.Member, args ...string) result {
	m.t.Helper()
	s := endpoints(members)
	s.args = args
	got, err := m.run(s)
	m.must(err)
	m.story = append(m.story, chapter{args, m.told(s, got)})
	return got
}

// healths are told in the order in which they came.
var healths = regexp.MustCompile(`\[\{"endpoint":"[^"]*","health".*\}\]`)

func (m *many) told(s step, r result) result {
	r = m.normal(s, r)
	r.out = healths.ReplaceAllStringFunc(r.out, func(list string) string { return sorted(list, "[{", "},{", "}]") })
	return r
}

// until repeats a line until it succeeds; only then it counts. Changes of members
// are refused until each is connected for long enough.
func (m *many) until(ctx context.Context, members []*cluster.Member, args ...string) result {
	m.t.Helper()
	for {
		got := m.say(members, args...)
		if got.code == 0 {
			return got
		}
		m.story = m.story[:len(m.story)-1]
		m.nothing++
		if ctx.Err() != nil {
			m.t.Fatalf("%s: etcdctl %q: %s", m.name, args, got.errs)
		}
	}
}

// readable are the formats whose numbers can be masked.
var readable = slices.DeleteFunc(slices.Clone(formats), func(format []string) bool { return slices.Contains(format, "protobuf") })

// live is what people do with a cluster of three.
func (m *many) live(ctx context.Context) {
	three := m.founders()
	for i := range 20 {
		m.say(three, "put", fmt.Sprintf("k%d", i), "v")
	}
	for _, format := range readable {
		for _, line := range [][]string{
			{"endpoint", "status"}, {"endpoint", "hashkv"}, {"endpoint", "hashkv", "--rev=5"}, {"endpoint", "health"},
		} {
			m.say(three, append(slices.Clone(format), line...)...)
		}
		for _, line := range [][]string{ // of one: a header names who answered
			{"member", "list"}, {"member", "list", "--consistency=s"}, {"alarm", "list"},
			{"endpoint", "status", "--cluster"}, {"endpoint", "hashkv", "--cluster"}, {"endpoint", "health", "--cluster"},
		} {
			m.say(three[1:2], append(slices.Clone(format), line...)...)
		}
	}
	m.say(three, "endpoint", "hashkv", "--rev=999")
	m.say(three, "defrag")
	m.say(three[:1], "defrag", "--cluster")

	m.say(three, "move-leader", m.id(ctx, three[1]))
	m.followed(ctx, three[1])
	m.say(three, "-w", "json", "move-leader", m.id(ctx, three[2]))
	m.followed(ctx, three[2])
	m.say(three[:1], "move-leader", m.id(ctx, three[0])) // asks one that does not lead
	m.say(three, "move-leader", "77")
	m.say(three, "move-leader", m.id(ctx, three[0]))
	m.followed(ctx, three[0])
	m.say(three, "endpoint", "status", "-w", "table")

	// A fourth joins as a learner, gets a vote, and leaves.
	got := m.until(ctx, three, "member", "add", m.joiner.Name, "--learner", "--peer-urls="+m.joiner.PeerURL)
	match := added.FindStringSubmatch(got.out)
	if match == nil {
		m.t.Fatalf("%s: no member in %q, %q", m.name, got.out, got.errs)
	}
	var id uint64
	_, err := fmt.Sscanf(match[1], "%x", &id)
	m.must(err)
	m.members = append(m.members, id)
	m.story[len(m.story)-1].result = m.told(endpoints(three), got)
	m.say(three, "member", "list")
	m.say(three, "member", "add", "again", "--learner", "--peer-urls=http://127.0.0.1:8,"+m.joiner.PeerURL)
	m.say(three, "member", "add", "fifth", "--learner", "--peer-urls=http://127.0.0.1:9") // one learner at a time
	m.say(three, "member", "promote", match[1])                                           // it never started
	m.say(three, "move-leader", match[1])
	m.all.Join(m.joiner, three...)
	m.must(m.joiner.Start())
	m.must(m.joiner.WaitReady(ctx))
	m.known(ctx)
	m.versionIs(ctx, "3.7.0", []*cluster.Member{m.joiner})
	four := append(slices.Clone(three), m.joiner)
	for _, line := range [][]string{{"member", "list"}, {"member", "list", "-w", "json"}, {"endpoint", "status", "--cluster"}} {
		m.say(three[:1], line...)
	}
	m.say([]*cluster.Member{m.joiner}, "put", "k", "at a learner")
	m.say([]*cluster.Member{m.joiner}, "get", "k0")
	m.say([]*cluster.Member{m.joiner}, "get", "k0", "--consistency=s")
	m.say([]*cluster.Member{m.joiner}, "member", "list")
	m.until(ctx, three, "member", "promote", match[1])
	m.say(three, "member", "promote", match[1])
	m.say(three, "member", "list")
	m.until(ctx, four, "put", "k", "at a voter")
	m.say([]*cluster.Member{m.joiner}, "get", "k0")
	m.followed(ctx, three[0])
	m.say(four, "endpoint", "status", "--cluster", "-w", "table")
	m.say(four, "endpoint", "hashkv", "--cluster")
	m.until(ctx, three, "member", "update", match[1], "--peer-urls="+strings.Replace(m.joiner.PeerURL, "127.0.0.1", "localhost", 1))
	m.say(three, "member", "list")
	m.say(three, "member", "update", match[1], "--peer-urls="+three[0].PeerURL)
	m.until(ctx, three, "member", "remove", match[1])
	m.say(three, "member", "remove", match[1])
	m.say(three, "member", "list")
	_, err = m.joiner.End(30 * time.Second)
	m.must(err)

	for _, version := range []string{"3.7.0", "3.5.0", "4.0.0", "3.6.0"} {
		m.say(three, "downgrade", "validate", version)
	}
	m.until(ctx, three, "downgrade", "enable", "3.6.0")
	m.say(three, "downgrade", "enable", "3.6.0")
	m.versionIs(ctx, "3.6.0", three)
	for _, format := range readable {
		m.say(three, append(slices.Clone(format), "endpoint", "status")...)
	}
	m.say(three, "put", "while", "going down")
	m.say(three, "downgrade", "cancel")
	m.say(three, "downgrade", "cancel")
	m.versionIs(ctx, "3.7.0", three)
	m.say(three, "-w", "json", "endpoint", "status")
	m.say(three, "endpoint", "hashkv", "--cluster")

	m.say(three, "snapshot", "save", "several")
	m.say(three[1:2], "snapshot", "save", "one")

	// Two that are down.
	three[1].Kill()
	m.say(three, "endpoint", "health")
	m.say(three[:1], "endpoint", "health", "--cluster")
	m.say(three, "get", "k0")
	three[2].Kill()
	m.say(three[:1], "get", "k0", "--consistency=s", "--command-timeout=2s")
	m.say(three[:1], "member", "list", "--consistency=s")
}

// known waits until the three have heard the joiner's name and client URL.
func (m *many) known(ctx context.Context) {
	m.t.Helper()
	for _, member := range m.founders() {
		client, err := member.Client()
		m.must(err)
		harness.Eventually(m.t, 30*time.Second, func() error {
			list, err := client.MemberList(ctx, clientv3.WithSerializable())
			if err != nil {
				return err
			}
			for _, known := range list.Members {
				if known.Name == m.joiner.Name && len(known.ClientURLs) > 0 {
					return nil
				}
			}
			return fmt.Errorf("%s does not know the joiner yet", member)
		})
		client.Close()
	}
}

// TestManyMembers: in front of three members both tools say the same of either
// kind of cluster, while members come and go, leadership moves and a downgrade
// begins and is called off.
func TestManyMembers(t *testing.T) {
	t.Parallel()
	reference, subject := tools(t)
	etcd, ours := harness.Reference(t), harness.Subject(t)
	c, err := cluster.New(t.TempDir(), []harness.Binary{etcd, etcd, etcd},
		"--heartbeat-interval=100", "--election-timeout=3000", "--unsafe-no-fsync=true",
		"--strict-reconfig-check=false") // else each change waits for five seconds of peace
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	joiner, err := c.Prepare(etcd)
	if err != nil {
		t.Fatal(err)
	}
	var first *many
	for _, kind := range []struct {
		name string
		tool []string
		bin  harness.Binary
	}{
		{"etcd's tool, etcd", reference, etcd},
		{"our tool, etcd", subject, etcd},
		{"our tool, our members", subject, ours},
		{"etcd's tool, our members", reference, ours},
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		m := &many{
			pair: &pair{name: kind.name, tool: kind.tool, server: &harness.Server{ClientURL: "http://EP"}, dir: t.TempDir()},
			t:    t, all: c, joiner: joiner,
		}
		m.form(ctx, kind.bin)
		m.live(ctx)
		cancel()
		if first == nil {
			first = m
			continue
		}
		for i, told := range m.story {
			if want := first.story[i]; told.result != want.result {
				t.Errorf("etcdctl %q, %s:\n%s", told.args, m.name, difference(want.result, told.result))
			}
		}
		t.Logf("%s: %d lines compared, %d repeated", m.name, len(m.story), m.nothing)
	}
	totalLock.Lock()
	defer totalLock.Unlock()
	total["(three members)"] += len(first.story)
	if len(first.story) < 140 {
		t.Errorf("only %d lines were compared", len(first.story))
	}
}
