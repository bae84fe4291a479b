// Package snapshot saves snapshots while the server works, and lets etcd's own tools judge and restore them.
package snapshot

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"milepost.dev/test/compat/harness"
)

func client(t *testing.T, s *harness.Server) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.ClientURL}, DialTimeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// fill writes n changes of all kinds.
func fill(t *testing.T, ctx context.Context, c *clientv3.Client, dice *rand.Rand, n int) {
	t.Helper()
	lease, err := c.Grant(ctx, 3600)
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		key := fmt.Sprintf("key-%d", dice.Intn(300))
		value := strings.Repeat("v", dice.Intn(400))
		switch dice.Intn(12) {
		case 0:
			_, err = c.Delete(ctx, key)
		case 1:
			_, err = c.Put(ctx, key, value, clientv3.WithLease(lease.ID))
		case 2:
			_, err = c.Txn(ctx).Then(clientv3.OpPut(key+"/a", value), clientv3.OpPut(key+"/b", value), clientv3.OpDelete(key)).Commit()
		case 3:
			_, err = c.Put(ctx, strings.Repeat("long/", 200)+key, strings.Repeat("w", 20_000))
		default:
			_, err = c.Put(ctx, key, value)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// save takes a snapshot as a client does and returns its file, hash at its end included.
func save(t *testing.T, ctx context.Context, c *clientv3.Client) string {
	t.Helper()
	answer, err := c.SnapshotWithVersion(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Snapshot.Close()
	path := filepath.Join(t.TempDir(), "saved.db")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	n, err := io.Copy(f, answer.Snapshot)
	if err != nil {
		t.Fatal(err)
	}
	if n%512 != sha256.Size {
		t.Fatalf("%d bytes: a database and a hash are a multiple of 512, and 32", n)
	}
	if answer.Version != "3.7.0" {
		t.Errorf("the storage version is %q", answer.Version)
	}
	return path
}

// TestRestoredByEtcd: what a server with a past hands out is restored by etcdutl, and the etcd that starts on it has the
// same keys, leases and hashes. Writes go on while the snapshot is taken.
func TestRestoredByEtcd(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	seed := time.Now().UnixNano() % 1_000_000
	t.Logf("seed %d", seed)
	dice := rand.New(rand.NewSource(seed))
	utl := harness.BuildTool(t, "refutl")
	for _, compacted := range []bool{false, true} {
		server := harness.Start(t, harness.Subject(t), harness.Options{NoSync: true})
		c := client(t, server)
		fill(t, ctx, c, dice, 2000)
		if compacted {
			if _, err := c.Compact(ctx, 1500, clientv3.WithCompactPhysical()); err != nil {
				t.Fatal(err)
			}
			fill(t, ctx, c, dice, 200)
		}
		settled, err := c.Get(ctx, "", clientv3.WithPrefix())
		if err != nil {
			t.Fatal(err)
		}
		stop, done := make(chan struct{}), sync.WaitGroup{}
		done.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
					c.Put(ctx, fmt.Sprintf("meanwhile-%d", n%50), "x")
				}
			}
		})
		path := save(t, ctx, c)
		close(stop)
		done.Wait()

		out, err := exec.CommandContext(ctx, utl, "snapshot", "status", path, "-w", "json").CombinedOutput()
		if err != nil {
			t.Fatalf("etcdutl finds fault with the file: %v\n%s", err, out)
		}
		t.Logf("etcdutl snapshot status: %s", out)

		restored := harness.Prepare(t, harness.Reference(t), harness.Options{NoSync: true})
		out, err = exec.CommandContext(ctx, utl, "snapshot", "restore", path, "--data-dir", restored.Dir, "--name", "m1",
			"--initial-cluster", "m1="+restored.PeerURL, "--initial-advertise-peer-urls", restored.PeerURL).CombinedOutput()
		if err != nil {
			t.Fatalf("etcdutl does not restore the file: %v\n%s", err, out)
		}
		if err := restored.Run(); err != nil {
			t.Fatalf("etcd does not start on the snapshot: %v\n%s", err, restored.LogTail(20))
		}
		compare(t, ctx, c, client(t, restored), settled.Header.Revision)
	}
}

// compare wants the same keyspace, history and leases up to revision.
func compare(t *testing.T, ctx context.Context, ours, theirs *clientv3.Client, revision int64) {
	t.Helper()
	for _, at := range []int64{revision, revision - 100} {
		a, err := ours.Get(ctx, "", clientv3.WithPrefix(), clientv3.WithRev(at))
		if err != nil {
			t.Fatal(err)
		}
		b, err := theirs.Get(ctx, "", clientv3.WithPrefix(), clientv3.WithRev(at))
		if err != nil {
			t.Fatal(err)
		}
		if len(a.Kvs) == 0 || fmt.Sprint(a.Kvs) != fmt.Sprint(b.Kvs) {
			t.Errorf("at revision %d: %d keys became %d", at, len(a.Kvs), len(b.Kvs))
		}
	}
	for _, at := range []int64{revision, revision - 10} {
		a, err := ours.HashKV(ctx, ours.Endpoints()[0], at)
		if err != nil {
			t.Fatal(err)
		}
		b, err := theirs.HashKV(ctx, theirs.Endpoints()[0], at)
		if err != nil {
			t.Fatal(err)
		}
		if a.Hash != b.Hash || a.CompactRevision != b.CompactRevision {
			t.Errorf("hash at %d: %d (compacted at %d), restored: %d (%d)", at, a.Hash, a.CompactRevision, b.Hash, b.CompactRevision)
		}
	}
	a, err := ours.Leases(ctx)
	if err != nil {
		t.Fatal(err)
	}
	b, err := theirs.Leases(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Leases) == 0 || len(a.Leases) != len(b.Leases) {
		t.Errorf("%d leases became %d", len(a.Leases), len(b.Leases))
	}
}

// TestGoneClient: a client that leaves in the middle of a snapshot leaves nothing behind that would hold up a compaction.
func TestGoneClient(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	server := harness.Start(t, harness.Subject(t), harness.Options{NoSync: true})
	c := client(t, server)
	// More than the windows of a connection hold.
	value := strings.Repeat("v", 1_000_000)
	for n := range 80 {
		if _, err := c.Put(ctx, fmt.Sprintf("key-%d", n), value); err != nil {
			t.Fatal(err)
		}
	}
	gone, leave := context.WithCancel(ctx)
	answer, err := c.SnapshotWithVersion(gone)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(answer.Snapshot, make([]byte, 100_000)); err != nil {
		t.Fatal(err)
	}
	// Each snapshot on its way has a place, and there are few.
	others, leaveOthers := context.WithCancel(ctx)
	refused := 0
	for range 8 {
		more, err := c.SnapshotWithVersion(others)
		if err == nil {
			_, err = io.ReadFull(more.Snapshot, make([]byte, 100_000))
		}
		if status.Code(err) == codes.ResourceExhausted || (err != nil && strings.Contains(err.Error(), "snapshots are being taken")) {
			refused++
		}
	}
	if !harness.SubjectIsReference(t) && refused != 5 {
		t.Errorf("%d of 8 further snapshots were refused", refused)
	}
	leaveOthers()
	leave()
	answer.Snapshot.Close()
	// A physical compaction waits until its deletions are done.
	if _, err := c.Compact(ctx, 60, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
}
