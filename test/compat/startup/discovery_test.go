package startup

import (
	"context"
	"fmt"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"milepost.dev/test/compat/harness"
)

// TestDiscoveryService lets members of both kinds meet at another etcd, of either kind: all come to the same cluster, and
// one too many is refused with etcd's words.
func TestDiscoveryService(t *testing.T) {
	reference, subject := harness.Reference(t), harness.Subject(t)
	for _, meeting := range []harness.Binary{reference, subject} {
		t.Run("at "+meeting.Name, func(t *testing.T) {
			at := harness.Start(t, meeting, harness.Options{NoSync: true})
			endpoint := strings.TrimPrefix(at.ClientURL, "http://")
			put(t, endpoint, "/_etcd/registry/tok/_config/size", "3")
			kinds := []harness.Binary{subject, subject, reference}
			var clients []string
			for i, bin := range kinds {
				client, p := join(t, bin, fmt.Sprintf("m%d", i), endpoint)
				clients = append(clients, client)
				defer func() {
					if t.Failed() {
						t.Logf("%s:\n%s", bin.Name, p.Stderr())
					}
				}()
			}
			var lists []string
			for _, client := range clients {
				list, err := members(client, 3)
				if err != nil {
					t.Fatalf("%s: %v", client, err)
				}
				lists = append(lists, list)
			}
			if lists[0] != lists[1] || lists[0] != lists[2] {
				t.Fatalf("members differ:\n%s", strings.Join(lists, "\n"))
			}
			put(t, clients[0], "a", "1")
			// One too many.
			for _, bin := range []harness.Binary{reference, subject} {
				_, p := join(t, bin, "late", endpoint)
				end, err := p.End(time.Minute)
				if err != nil {
					t.Fatal(err)
				}
				for _, text := range []string{
					"failed to bootstrap; discovery token was already used",
					"failed to join discovery cluster (discovery: cluster is full)",
				} {
					if end != "exit 1" || !strings.Contains(p.Stderr(), text) {
						t.Fatalf("%s: %s, without %q: %s", bin.Name, end, text, p.Stderr())
					}
				}
			}
		})
	}
}

// join starts a member that knows nothing but the token.
func join(t *testing.T, bin harness.Binary, name, endpoint string) (string, *harness.Process) {
	dir, client, peer := t.TempDir(), harness.FreeAddr(t), harness.FreeAddr(t)
	return client, harness.Launch(t, bin, dir, []string{
		"--name=" + name, "--data-dir=" + filepath.Join(dir, "data"), "--unsafe-no-fsync=true",
		"--listen-client-urls=http://" + client, "--advertise-client-urls=http://" + client,
		"--listen-peer-urls=http://" + peer, "--initial-advertise-peer-urls=http://" + peer,
		"--discovery-endpoints=" + endpoint, "--discovery-token=tok",
	}, nil)
}

func dialPlain(endpoint string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, DialTimeout: 30 * time.Second, Logger: zap.NewNop()})
}

func put(t *testing.T, endpoint, key, value string) {
	t.Helper()
	client, err := dialPlain(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if _, err := client.Put(ctx, key, value); err != nil {
		t.Fatal(err)
	}
}

// members is who the member at endpoint says is in the cluster, once all want have published their names.
func members(endpoint string, want int) (string, error) {
	client, err := dialPlain(endpoint)
	if err != nil {
		return "", err
	}
	defer client.Close()
	var list string
	err = until(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		found, err := client.MemberList(ctx)
		if err != nil {
			return err
		}
		var lines []string
		for _, m := range found.Members {
			if m.Name == "" || len(m.ClientURLs) == 0 {
				return fmt.Errorf("%x has not published its name", m.ID)
			}
			lines = append(lines, fmt.Sprintf("%x %s %v %v", m.ID, m.Name, m.PeerURLs, m.ClientURLs))
		}
		sort.Strings(lines)
		list = fmt.Sprintf("%x: %s", found.Header.ClusterId, strings.Join(lines, "; "))
		if len(lines) != want {
			return fmt.Errorf("%d members: %s", len(lines), list)
		}
		return nil
	})
	return list, err
}
