package differential

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"milepost.dev/test/compat/differ"
	"milepost.dev/test/compat/harness"
)

// TestAutoCompaction: with a retention of two seconds the first revisions are
// gone soon, by themselves, and the newest one never.
func TestAutoCompaction(t *testing.T) {
	pair := startPair(t, "--auto-compaction-mode=periodic", "--auto-compaction-retention=2s")
	ref, sub := differ.Both(pair, func(side *differ.Side) error {
		kv := pb.NewKVClient(side.Conn)
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
			_, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("k")})
			if err == nil {
				_, err = kv.Range(ctx, &pb.RangeRequest{Key: []byte("k"), Revision: 2})
			}
			cancel()
			if s := status.Convert(err); s.Code() == codes.OutOfRange && s.Message() == "etcdserver: mvcc: required revision has been compacted" {
				return nil
			} else if err != nil {
				return err
			}
		}
		return fmt.Errorf("revision 2 can still be read")
	})
	if ref != nil || sub != nil {
		t.Errorf("compaction by itself: reference %v, subject %v", ref, sub)
	}
}

// TestWALDir: the log lives where the flag says, and the member finds it again.
func TestWALDir(t *testing.T) {
	walDir := filepath.Join(t.TempDir(), "log")
	server := harness.Start(t, harness.Subject(t), harness.Options{Args: []string{"--wal-dir=" + walDir}})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if _, err := pb.NewKVClient(server.Conn(t)).Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: []byte("v")}); err != nil {
		t.Fatal(err)
	}
	segments, err := filepath.Glob(filepath.Join(walDir, "*.wal"))
	if err != nil || len(segments) == 0 {
		t.Errorf("no segments in %s: %v", walDir, err)
	}
	if _, err := os.Stat(filepath.Join(server.Dir, "member", "wal")); err == nil {
		t.Error("there is a log in the data directory too")
	}
	server.Kill()
	if err := server.Run(); err != nil {
		t.Fatal(err)
	}
	got, err := pb.NewKVClient(server.Conn(t)).Range(ctx, &pb.RangeRequest{Key: []byte("k")})
	if err != nil || got.Count != 1 || string(got.Kvs[0].Value) != "v" {
		t.Errorf("after a restart: %v, %v", got, err)
	}
}

// TestHealthWatch: the health service's stream tells that the server serves,
// and goes on.
func TestHealthWatch(t *testing.T) {
	pair := startPair(t)
	for _, service := range []string{"", "nobody"} {
		ref, sub := differ.Both(pair, func(side *differ.Side) string {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			stream, err := grpc_health_v1.NewHealthClient(side.Conn).Watch(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
			if err != nil {
				return err.Error()
			}
			first, err := stream.Recv()
			return fmt.Sprintf("%v %v", first.GetStatus(), err)
		})
		if ref != sub {
			pair.Finding("health watch", "service "+service, ref, sub)
		}
	}
}
