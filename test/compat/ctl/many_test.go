package ctl

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"milepost.dev/test/compat/cluster"
	"milepost.dev/test/compat/harness"
)

// many is both tools in front of one cluster of three.
type many struct {
	name  string
	tools [2][]string
	all   *cluster.Cluster
	ids   []uint64
}

// newMany starts three members of one kind.
func newMany(t *testing.T, name string, bin harness.Binary) *many {
	t.Helper()
	reference, subject := tools(t)
	c, err := cluster.New(t.TempDir(), []harness.Binary{bin, bin, bin})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := c.Start(ctx); err != nil {
		t.Fatal(err)
	}
	client, err := c.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	list, err := client.MemberList(ctx)
	if err != nil {
		t.Fatal(err)
	}
	m := &many{name: name, tools: [2][]string{reference, subject}, all: c, ids: []uint64{list.Header.ClusterId}}
	for _, member := range list.Members {
		m.ids = append(m.ids, member.ID)
	}
	return m
}

// leader waits until somebody leads; the others follow.
func (m *many) leader(t *testing.T) (leader *cluster.Member, others []uint64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	leader, err := m.all.Leader(ctx)
	if err != nil {
		t.Fatal(err)
	}
	client, err := m.all.Client()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	status, err := client.Status(ctx, leader.ClientURL)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range m.ids[1:] {
		if id != status.Header.MemberId {
			others = append(others, id)
		}
	}
	return leader, others
}

// run runs one line of one tool.
func (m *many) run(t *testing.T, tool int, args ...string) result {
	t.Helper()
	var endpoints []string
	for _, member := range m.all.Members() {
		endpoints = append(endpoints, strings.TrimPrefix(member.ClientURL, "http://"))
	}
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	argv := append(slices.Clone(m.tools[tool]), args...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(environment(), "ETCDCTL_ENDPOINTS="+strings.Join(endpoints, ","))
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); ctx.Err() != nil {
		t.Fatalf("%q on %s did not end: %v", args, m.name, err)
	}
	return result{m.normal(out.String()), m.normal(errs.String()), cmd.ProcessState.ExitCode()}
}

var (
	address    = regexp.MustCompile(`127\.0\.0\.1:\d+`)
	memberName = regexp.MustCompile(`\bm[0-9]\b`)
	hashed     = regexp.MustCompile(`("hash":|"Hash" : |, )\d{5,}`)
	hashedCell = regexp.MustCompile(`│ +\d{5,} │`)
)

// normal leaves out what two clusters cannot have in common: ids, ports, and
// which of the three is which. Lines come in any order.
func (m *many) normal(text string) string {
	for _, id := range m.ids {
		for _, form := range []string{"%16x", "%x", "%d"} {
			text = strings.ReplaceAll(text, fmt.Sprintf(form, id), "ID")
		}
	}
	text = address.ReplaceAllString(text, "ADDRESS")
	text = memberName.ReplaceAllString(text, "mN")
	for _, all := range [][]mask{logMasks, stateMasks, timeMasks} {
		for _, one := range all {
			text = one.what.ReplaceAllString(text, one.by)
		}
	}
	text = squeeze(text)
	text = statusRow.ReplaceAllString(text, "$1, S, S, N%$2, N, N, N")
	text = statusCells.ReplaceAllString(text, "$1 │ S │ S │ N% $2 │ N │ N │ N")
	text = hashed.ReplaceAllString(text, "${1}HASH")
	text = hashedCell.ReplaceAllString(text, "│ HASH │")
	lines := strings.Split(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// TestManyMembers: in front of three members both tools say the same of either
// kind of cluster.
func TestManyMembers(t *testing.T) {
	t.Parallel()
	kinds := []*many{newMany(t, "etcd", harness.Reference(t)), newMany(t, "ours", harness.Subject(t))}
	count := 0
	// same runs a line by both tools on both clusters.
	same := func(args func(*many) []string) {
		t.Helper()
		var first result
		for i, m := range kinds {
			for tool := range m.tools {
				got := m.run(t, tool, args(m)...)
				if i == 0 && tool == 0 {
					first = got
				} else if got != first {
					t.Errorf("etcdctl %q, tool %d on %s:\n%s", args(m), tool, m.name, difference(first, got))
				}
				count++
			}
		}
	}
	fixed := func(args ...string) {
		t.Helper()
		same(func(*many) []string { return args })
	}
	fixed("put", "k", "v")
	for _, format := range formats {
		for _, line := range [][]string{
			{"member", "list"}, {"member", "list", "--consistency=s"},
			{"endpoint", "status", "--cluster"}, {"endpoint", "hashkv", "--cluster"}, {"endpoint", "health", "--cluster"},
			{"endpoint", "status"}, {"alarm", "list"},
		} {
			fixed(append(slices.Clone(format), line...)...)
		}
	}
	fixed("move-leader", "77")
	for _, format := range [][]string{{"-w", "simple"}, {"-w", "json"}} {
		// Each time to another one, which has a vote and does not lead.
		same(func(m *many) []string {
			_, others := m.leader(t)
			return append(slices.Clone(format), "move-leader", fmt.Sprintf("%x", others[0]))
		})
	}
	same(func(m *many) []string {
		_, others := m.leader(t)
		ids := fmt.Sprintf("%x", others[0])
		return []string{"member", "promote", ids}
	})
	fixed("member", "remove", "77")
	fixed("member", "add", "m3", "--learner", "--peer-urls="+kinds[0].all.Members()[0].PeerURL+"x")
	fixed("downgrade", "validate", "3.6.0")
	fixed("downgrade", "cancel")
	totalLock.Lock()
	defer totalLock.Unlock()
	total["(three members)"] += count
	if os.Getenv("MILEPOST_CTL") == "" && count < 240 {
		t.Errorf("only %d lines were compared", count)
	}
}
