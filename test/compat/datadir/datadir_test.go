// Package datadir puts servers on directories that are not theirs, or that
// somebody else holds. None may come up, and none may change what it found.
package datadir

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"milepost.dev/test/compat/harness"
)

// refuseWithin is the time in which a server must have given up.
const refuseWithin = 30 * time.Second

// used is the data directory of a server that has written and was stopped.
func used(t *testing.T, bin harness.Binary) string {
	t.Helper()
	server := harness.Start(t, bin, harness.Options{})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := pb.NewKVClient(server.Conn(t)).Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: []byte("v")}); err != nil {
		t.Fatal(err)
	}
	if _, err := server.Terminate(); err != nil {
		t.Fatal(err)
	}
	return server.Dir
}

func digest(t *testing.T, dir string) string {
	t.Helper()
	text, err := harness.TreeDigest(dir)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// refused starts a server that must end by itself with this exit code, and
// returns what it printed.
func refused(t *testing.T, server *harness.Server, code int) string {
	t.Helper()
	if err := server.Spawn(); err != nil {
		t.Fatal(err)
	}
	got, err := server.ExitCode(refuseWithin)
	if err != nil {
		t.Fatal(err)
	}
	if code >= 0 && got != code {
		t.Errorf("exit code %d, wanted %d", got, code)
	}
	if got == 0 {
		t.Error("it ended as if all were well")
	}
	return server.Log()
}

// oneLine demands that the last line of a log alone says what was found, with
// the place in it.
func oneLine(t *testing.T, log, place string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(log), "\n")
	if last := lines[len(lines)-1]; !strings.Contains(last, place) {
		t.Errorf("the last line does not name %s: %s", place, last)
	}
}

// TestEtcdDirectoryIsRefused: ours on etcd's directory ends with code 1 and
// one line, and not a byte has changed; etcd itself still takes it.
func TestEtcdDirectoryIsRefused(t *testing.T) {
	harness.NeedOwnSubject(t)
	dir := used(t, harness.Reference(t))
	before := digest(t, dir)
	ours := harness.Prepare(t, harness.Subject(t), harness.Options{Dir: dir})
	log := refused(t, ours, 1)
	oneLine(t, log, dir)
	if n := len(strings.Split(strings.TrimSpace(log), "\n")); n > 3 {
		t.Logf("it said %d lines:\n%s", n, log)
	}
	if after := digest(t, dir); after != before {
		t.Errorf("the directory was touched:\nbefore\n%s\nafter\n%s", before, after)
	}
	etcd := harness.Start(t, harness.Reference(t), harness.Options{Dir: dir, AdvertisePeerURL: "http://127.0.0.1:23802"})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	got, err := pb.NewKVClient(etcd.Conn(t)).Range(ctx, &pb.RangeRequest{Key: []byte("k")})
	if err != nil || got.Count != 1 {
		t.Errorf("etcd on its own directory afterwards: %v, %v", got, err)
	}
}

// TestOurDirectoryIsRefusedByEtcd: etcd on ours must fail and not come up with
// old or no data; ours still takes it.
func TestOurDirectoryIsRefusedByEtcd(t *testing.T) {
	harness.NeedOwnSubject(t)
	dir := used(t, harness.Subject(t))
	etcd := harness.Prepare(t, harness.Reference(t), harness.Options{Dir: dir})
	refused(t, etcd, -1)
	ours := harness.Start(t, harness.Subject(t), harness.Options{Dir: dir})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	got, err := pb.NewKVClient(ours.Conn(t)).Range(ctx, &pb.RangeRequest{Key: []byte("k")})
	if err != nil || got.Count != 1 || string(got.Kvs[0].Value) != "v" {
		t.Errorf("ours on its own directory afterwards: %v, %v", got, err)
	}
}

// TestSecondProcess: a second server on a directory that is in use ends, and
// the first one goes on.
func TestSecondProcess(t *testing.T) {
	harness.NeedOwnSubject(t) // etcd waits for the lock instead
	first := harness.Start(t, harness.Subject(t), harness.Options{})
	second := harness.Prepare(t, harness.Subject(t), harness.Options{Dir: first.Dir})
	oneLine(t, refused(t, second, 1), first.Dir)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if _, err := pb.NewKVClient(first.Conn(t)).Put(ctx, &pb.PutRequest{Key: []byte("k")}); err != nil {
		t.Errorf("the first server afterwards: %v", err)
	}
}

// TestBusyPort: a server whose client port is taken ends and names it.
func TestBusyPort(t *testing.T) {
	first := harness.Start(t, harness.Subject(t), harness.Options{NoSync: true})
	second := harness.Prepare(t, harness.Subject(t), harness.Options{NoSync: true})
	second.ClientURL = first.ClientURL
	log := refused(t, second, 1)
	oneLine(t, log, strings.TrimPrefix(first.ClientURL, "http://"))
}

// TestNoDirectory: where no directory can be made, the server says so.
func TestNoDirectory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("in the way"), 0o600); err != nil {
		t.Fatal(err)
	}
	server := harness.Prepare(t, harness.Subject(t), harness.Options{Dir: filepath.Join(file, "data")})
	oneLine(t, refused(t, server, 1), file)
}

// TestUnknownFlag: a flag that is not there is refused by its name.
func TestUnknownFlag(t *testing.T) {
	server := harness.Prepare(t, harness.Subject(t), harness.Options{Args: []string{"--no-such-flag=1"}})
	if log := refused(t, server, -1); !strings.Contains(log, "no-such-flag") {
		t.Errorf("it does not name the flag: %s", log)
	}
}

// TestEnvironment: a flag may be given as a variable.
func TestEnvironment(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "from-env")
	server := harness.Prepare(t, harness.Subject(t), harness.Options{Env: []string{"ETCD_MAX_TXN_OPS=1"}})
	server.Dir = dir
	if err := server.Run(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	op := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("k")}}}
	_, err := pb.NewKVClient(server.Conn(t)).Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{op, op}})
	if err == nil || !strings.Contains(err.Error(), "too many operations") {
		t.Errorf("two operations where the environment allows one: %v", err)
	}
}
