package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"milepost.dev/test/compat/harness"
)

// identity is what a member list says that all flags alike must make alike.
type identity struct {
	Cluster string
	Members string // "id name peerURL", by id
}

// listed is a member in the list that a peer port gives.
type listed struct {
	ID       uint64   `json:"id"`
	Name     string   `json:"name"`
	PeerURLs []string `json:"peerURLs"`
}

// listByPeerPort asks a member's peer port, which answers without a quorum, and
// before clients are served.
func listByPeerPort(ctx context.Context, m *Member) (cluster string, list []listed, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.PeerURL+"/members", nil)
	if err != nil {
		return "", nil, err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", nil, err
	}
	defer resp.Body.Close()
	err = json.NewDecoder(resp.Body).Decode(&list)
	return resp.Header.Get("X-Etcd-Cluster-ID"), list, err
}

func identityByPeerPort(ctx context.Context, m *Member) (identity, error) {
	cluster, list, err := listByPeerPort(ctx, m)
	if err != nil {
		return identity{}, err
	}
	out := identity{Cluster: cluster}
	for _, m := range list {
		out.Members += fmt.Sprintf("%x %s %v\n", m.ID, m.Name, m.PeerURLs)
	}
	return out, nil
}

func identityByClient(ctx context.Context, m *Member) (identity, error) {
	client, err := m.Client()
	if err != nil {
		return identity{}, err
	}
	defer client.Close()
	list, err := client.MemberList(ctx)
	if err != nil {
		return identity{}, err
	}
	out := identity{Cluster: fmt.Sprintf("%x", list.Header.ClusterId)}
	for _, m := range list.Members {
		out.Members += fmt.Sprintf("%x %s %v\n", m.ID, m.Name, m.PeerURLs)
	}
	return out, nil
}

// TestForming: clusters of one, three and five form from --initial-cluster with
// the ids that etcd comes to by the same flags, every member serves, and they
// are there again after a restart of any one and of all.
func TestForming(t *testing.T) {
	parallel(t)
	sizes := []int{1, 3, 5}
	if harness.IntEnv(t, "CLUSTER_SLOW", 0) > 0 {
		sizes = append(sizes, 7)
	}
	for _, size := range sizes {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			ctx := deadline(t, 3*time.Minute)
			c := prepare(t, of(t, size), "--unsafe-no-fsync=true", "--initial-cluster-token=forming")
			want := referenceIdentity(ctx, t, c)
			must(t, c.Start(ctx))
			sameIdentity(ctx, t, c, want)
			for _, m := range c.Members() { // the leader settles the cluster's version in a few seconds
				harness.Eventually(t, 20*time.Second, func() error {
					status, err := m.Status(ctx)
					if err == nil && status.StorageVersion != "3.7.0" {
						err = fmt.Errorf("the storage version of %s is %q", m, status.StorageVersion)
					}
					return err
				})
			}
			written := writeThroughEach(ctx, t, c, "first")
			for _, m := range c.Members() { // each one alone, in either way of ending
				if m.Number%2 == 0 {
					m.Kill()
				} else if _, err := m.Terminate(30 * time.Second); err != nil {
					t.Fatal(err)
				}
				must(t, m.Start())
				must(t, c.WaitReady(ctx))
			}
			readFromEach(ctx, t, c, written)
			for _, m := range c.Members() { // all of them at once
				m.Kill()
			}
			must(t, c.Start(ctx))
			readFromEach(ctx, t, c, written)
			sameIdentity(ctx, t, c, want)
			writeThroughEach(ctx, t, c, "second")
			revision, err := c.SameHashes(ctx)
			must(t, err)
			t.Logf("%d members: %s, equal hashes at revision %d", size, want.Cluster, revision)
		})
	}
}

// referenceIdentity starts one real etcd in the place of the first member, with
// the first member's flags, and asks it who is who.
func referenceIdentity(ctx context.Context, t *testing.T, c *Cluster) identity {
	t.Helper()
	first := c.Members()[0]
	subject := first.Binary
	first.Binary = harness.Reference(t)
	must(t, first.Start())
	var want identity
	harness.Eventually(t, 30*time.Second, func() (err error) {
		want, err = identityByPeerPort(ctx, first)
		if err == nil && want.Members == "" {
			err = fmt.Errorf("an empty member list")
		}
		return err
	})
	first.Kill()
	must(t, first.Wipe())
	first.Binary = subject
	return want
}

func sameIdentity(ctx context.Context, t *testing.T, c *Cluster, want identity) {
	t.Helper()
	for _, m := range c.Members() {
		for kind, ask := range map[string]func(context.Context, *Member) (identity, error){
			"client": identityByClient, "peer": identityByPeerPort,
		} {
			got, err := ask(ctx, m)
			if err != nil {
				t.Fatalf("%s by its %s port: %v", m, kind, err)
			}
			got.Members = nameless(got.Members)
			if got.Cluster != want.Cluster || got.Members != nameless(want.Members) {
				t.Errorf("%s by its %s port:\n is   %+v\n etcd %+v", m, kind, got, want)
			}
		}
	}
}

// nameless takes the names out, which a member list has once each member has
// published its own.
var nameColumn = regexp.MustCompile(`(?m)^(\S+) \S* \[`)

func nameless(list string) string { return nameColumn.ReplaceAllString(list, "$1 [") }

// writeThroughEach puts one key through each member and returns them all.
func writeThroughEach(ctx context.Context, t *testing.T, c *Cluster, value string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, m := range c.Running() {
		client, err := m.Client()
		must(t, err)
		key := "through/" + m.Name
		if _, err := client.Put(ctx, key, value); err != nil {
			t.Fatalf("a put through %s: %v", m, err)
		}
		client.Close()
		out[key] = value
	}
	return out
}

// readFromEach reads all keys from each member, linearizable.
func readFromEach(ctx context.Context, t *testing.T, c *Cluster, want map[string]string) {
	t.Helper()
	must(t, c.WaitReady(ctx))
	for _, m := range c.Running() {
		client, err := m.Client()
		must(t, err)
		got, err := client.Get(ctx, "through/", clientv3.WithPrefix())
		if err != nil {
			t.Fatalf("a read from %s: %v", m, err)
		}
		client.Close()
		if len(got.Kvs) != len(want) {
			t.Errorf("%s has %d keys of %d", m, len(got.Kvs), len(want))
		}
		for _, kv := range got.Kvs {
			if want[string(kv.Key)] != string(kv.Value) {
				t.Errorf("%s: %s is %q, written was %q", m, kv.Key, kv.Value, want[string(kv.Key)])
			}
		}
	}
}

// refusal is a start that must end with code 1 and a line that tells which
// member or flag is meant. Etcd ends all of them as well; its words differ.
type refusal struct {
	name string
	// spoil changes the flags of the cluster's last member, m2.
	spoil func(c *Cluster, m *Member)
	// says must match a line of what the server under test prints.
	says func(c *Cluster) string
}

func refusals() []refusal {
	all := func(c *Cluster, m *Member) string { return c.InitialCluster(c.Members()...) }
	startWith := func(m *Member, cluster, state string) {
		m.start = []string{"--initial-cluster=" + cluster, "--initial-cluster-state=" + state}
	}
	return []refusal{
		{"own name is missing", func(c *Cluster, m *Member) {
			startWith(m, c.InitialCluster(c.Members()[:2]...), "new")
		}, func(*Cluster) string { return `m2` }},
		{"advertised URL is not the cluster's", func(c *Cluster, m *Member) {
			startWith(m, strings.Replace(all(c, m), m.PeerURL, "http://127.0.0.1:1", 1), "new")
		}, func(c *Cluster) string { return regexp.QuoteMeta(c.Members()[2].PeerURL) }},
		{"two members with one URL", func(c *Cluster, m *Member) {
			startWith(m, strings.Replace(all(c, m), c.Members()[0].PeerURL, c.Members()[1].PeerURL, 1), "new")
		}, func(c *Cluster) string { return regexp.QuoteMeta(c.Members()[1].PeerURL) }},
		{"joins, and the live cluster has one member less", func(c *Cluster, m *Member) {
			startWith(m, all(c, m), "existing")
		}, func(*Cluster) string { return `member count|number of members|members` }},
		{"joins, and names a member that the live cluster does not have", func(c *Cluster, m *Member) {
			startWith(m, "m0="+c.Members()[0].PeerURL+",m2="+m.PeerURL, "existing")
		}, func(c *Cluster) string {
			return regexp.QuoteMeta(c.Members()[2].PeerURL) + `|m2|` + regexp.QuoteMeta(c.Members()[1].PeerURL)
		}},
		{"joins, and nobody answers", func(c *Cluster, m *Member) {
			startWith(m, "m0=http://127.0.0.1:1,m2="+m.PeerURL, "existing")
		}, func(*Cluster) string { return `127\.0\.0\.1:1\b|fetch|reach` }},
	}
}

// TestFormingRefused: starts that can come to nothing end, and say why.
func TestFormingRefused(t *testing.T) {
	parallel(t)
	ctx := deadline(t, 3*time.Minute)
	subject := harness.Subject(t)
	c := prepare(t, []harness.Binary{subject, subject}, "--unsafe-no-fsync=true")
	must(t, c.Start(ctx))
	m, err := c.Prepare(subject)
	must(t, err)
	counts := newTally(t, "refused starts")
	for _, r := range refusals() {
		t.Run(r.name, func(t *testing.T) {
			before := len(m.Log())
			r.spoil(c, m)
			must(t, m.Start())
			how, err := m.End(45 * time.Second)
			m.Kill()
			said := m.Log()[before:]
			must(t, m.Wipe())
			if err != nil {
				t.Fatalf("%v; it printed:\n%s", err, said)
			}
			if how != "exit 1" {
				t.Errorf("it ended with %s, not with exit 1", how)
			}
			line := regexp.MustCompile(`(?m)^.*(?:` + r.says(c) + `).*$`)
			var found string
			for _, l := range strings.Split(said, "\n") {
				if (strings.Contains(l, `"fatal"`) || strings.Contains(l, `"error"`) || !strings.HasPrefix(l, "{")) && line.MatchString(l) {
					found = l
				}
			}
			if found == "" {
				t.Errorf("no line of an error names %s; it printed:\n%s", r.says(c), said)
			}
			t.Logf("it says: %.400s", found)
			counts.add("refused starts", 1)
		})
	}
}

// TestStranger: a member that was formed with another token has another
// cluster's id. It is not let in, whatever addresses it knows, and those whose
// cluster it is are not disturbed. The third member's place is taken by it.
func TestStranger(t *testing.T) {
	parallel(t)
	ctx := deadline(t, 2*time.Minute)
	c := prepare(t, of(t, 3), "--unsafe-no-fsync=true")
	stranger := c.Members()[2]
	stranger.Args("--initial-cluster-token=another")
	for _, m := range c.Members() {
		must(t, m.Start())
	}
	for _, m := range c.Members()[:2] {
		must(t, m.WaitReady(ctx))
	}
	complaint := regexp.MustCompile(`(?i)cluster.?id mismatch|another cluster|different cluster`)
	harness.Eventually(t, 30*time.Second, func() error {
		for _, m := range c.Members() {
			if complaint.MatchString(m.Log()) {
				t.Logf("%s says: %.400s", m, complaint.FindString(m.Log()))
				return nil
			}
		}
		return fmt.Errorf("nobody says that the third member is of another cluster")
	})
	conn, err := stranger.Conn()
	must(t, err)
	defer conn.Close()
	short, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if _, err := pb.NewKVClient(conn).Put(short, &pb.PutRequest{Key: []byte("stranger")}); err == nil {
		t.Error("a member of another cluster took a write")
	}
	client, err := c.Members()[0].Client()
	must(t, err)
	defer client.Close()
	_, err = client.Put(ctx, "own", "1")
	must(t, err)
	// Set right, it is a member.
	stranger.Kill()
	must(t, stranger.Wipe())
	stranger.args = nil
	must(t, stranger.Start())
	must(t, c.WaitReady(ctx))
	_, err = c.SameHashes(ctx)
	must(t, err)
}

// TestFlagsAfterForming: once formed, --initial-cluster and its state are not
// looked at any more: a restart with other words finds the same cluster.
func TestFlagsAfterForming(t *testing.T) {
	parallel(t)
	ctx := deadline(t, 2*time.Minute)
	c := started(t, of(t, 3), "--unsafe-no-fsync=true")
	written := writeThroughEach(ctx, t, c, "kept")
	m := c.Members()[1]
	_, err := m.Terminate(30 * time.Second)
	must(t, err)
	m.start = []string{"--initial-cluster=m1=" + m.PeerURL, "--initial-cluster-state=existing", "--initial-cluster-token=later"}
	must(t, m.Start())
	readFromEach(ctx, t, c, written)
	if _, err := os.Stat(m.Dir); err != nil {
		t.Error(err)
	}
}
