// Package wal reads the log that the server under test has written with etcd's
// own code: it must be a log for etcd, and hold for the same requests the same
// entries as etcd's log, but for the ids that every request gets.
package wal

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"milepost.dev/test/compat/harness"
	"milepost.dev/test/compat/waldir"
)

// TestShapes: what etcd reads from each shape is what the shape is meant to be.
// The directories are for readers of other kinds; this holds their maker.
func TestShapes(t *testing.T) {
	dir := t.TempDir()
	if err := waldir.Write(dir); err != nil {
		t.Fatal(err)
	}
	for _, want := range []struct {
		name     string
		entries  int
		start    uint64
		repaired bool
		fails    bool
	}{
		{"fresh", 0, 0, false, false},
		{"entries", 50, 0, false, false},
		{"states", 0, 0, false, false},
		{"segments", 120, 0, false, false},
		{"overwritten", 15, 0, false, false},
		{"large", 6, 0, false, false},
		{"snapshot", 41, 59, false, false},
		{"released", 31, 239, false, false},
		{"torn-end", 29, 0, true, false},
		{"torn-zeros", 10, 0, true, false},
		{"flipped-middle", 0, 0, false, true},
		{"flipped-last", 0, 0, false, true},
		{"gap", 0, 0, false, true},
		{"lost-segment", 0, 0, false, true},
	} {
		text, err := os.ReadFile(filepath.Join(dir, want.name, "expect.json"))
		if err != nil {
			t.Fatal(err)
		}
		var got waldir.Contents
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		if len(got.Entries) != want.entries || got.Start.Index != want.start || got.Repaired != want.repaired || (got.Error != "") != want.fails {
			t.Errorf("%s: %d entries from %d, repaired %v, error %q", want.name, len(got.Entries), got.Start.Index, got.Repaired, got.Error)
		}
	}
	if n := len(waldir.ShapeNames()); n != 14 {
		t.Errorf("%d shapes are made, 14 are checked", n)
	}
}

// script is a client's life: every request that goes through the log, in one
// order, with nothing that a server chooses.
func script(ctx context.Context, conn *grpc.ClientConn) error {
	kv, lease, maintenance := pb.NewKVClient(conn), pb.NewLeaseClient(conn), pb.NewMaintenanceClient(conn)
	put := func(req *pb.PutRequest) error { _, err := kv.Put(ctx, req); return err }
	putOp := func(key string) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: []byte("in txn"), PrevKv: true}}}
	}
	for _, step := range []func() error{
		func() error { return put(&pb.PutRequest{Key: []byte("a"), Value: []byte("1")}) },
		func() error { return put(&pb.PutRequest{Key: []byte("a"), PrevKv: true}) },
		func() error { return put(&pb.PutRequest{Key: []byte{0, 0xff}, Value: bytes.Repeat([]byte{0}, 70_000)}) },
		func() error { _, err := lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 77, TTL: 5000}); return err },
		func() error {
			_, err := lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: -5, TTL: 9_000_000_000})
			return err
		},
		func() error { return put(&pb.PutRequest{Key: []byte("b"), Value: []byte("2"), Lease: 77}) },
		func() error { return put(&pb.PutRequest{Key: []byte("b"), IgnoreValue: true, Lease: 77}) },
		func() error { return put(&pb.PutRequest{Key: []byte("b"), Value: []byte("3"), IgnoreLease: true}) },
		func() error {
			_, err := kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte("b"), PrevKv: true})
			return err
		},
		func() error {
			_, err := kv.Txn(ctx, &pb.TxnRequest{
				Compare: []*pb.Compare{
					{Key: []byte("b"), Target: pb.Compare_VERSION, Result: pb.Compare_GREATER, TargetUnion: &pb.Compare_Version{Version: 0}},
					{Key: []byte("b"), Target: pb.Compare_VALUE, RangeEnd: []byte("c"), TargetUnion: &pb.Compare_Value{}},
					{Key: []byte("b"), Target: pb.Compare_LEASE, TargetUnion: &pb.Compare_Lease{Lease: 77}},
				},
				Success: []*pb.RequestOp{putOp("t1")},
				Failure: []*pb.RequestOp{
					putOp("t2"),
					{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("b"), KeysOnly: true, Limit: 3}}},
					{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Failure: []*pb.RequestOp{putOp("t3")}}}},
					{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("x"), RangeEnd: []byte{0}}}},
				},
			})
			return err
		},
		func() error { _, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("b")}); return err }, // not in the log
		func() error { _, err := kv.Txn(ctx, &pb.TxnRequest{}); return err },                     // nor this
		func() error { _, err := kv.Compact(ctx, &pb.CompactionRequest{Revision: 3}); return err },
		func() error {
			_, err := kv.Compact(ctx, &pb.CompactionRequest{Revision: 4, Physical: true})
			return err
		},
		func() error { _, err := lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 77}); return err },
		func() error { _, err := maintenance.Alarm(ctx, &pb.AlarmRequest{}); return err },
		func() error { // refused when it is applied, and in the log all the same
			if err := put(&pb.PutRequest{Key: []byte("c"), Lease: 4711}); err == nil {
				return fmt.Errorf("a put under an unknown lease went through")
			}
			return nil
		},
		func() error { // refused before it is proposed
			if err := put(&pb.PutRequest{}); err == nil {
				return fmt.Errorf("a put without a key went through")
			}
			return nil
		},
		func() error { return put(&pb.PutRequest{Key: []byte("last")}) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// ran starts a server, plays the script, ends the server and reads its log.
func ran(t *testing.T, bin harness.Binary, end func(*harness.Server) error) waldir.Contents {
	t.Helper()
	server := harness.Start(t, bin, harness.Options{})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := script(ctx, server.Conn(t)); err != nil {
		t.Fatalf("%s: %v", bin.Name, err)
	}
	if err := end(server); err != nil {
		t.Fatalf("%s: %v", bin.Name, err)
	}
	contents, err := waldir.Read(filepath.Join(server.Dir, "member", "wal"), filepath.Join(server.Dir, "member", "snap"))
	if err != nil {
		t.Fatalf("%s: %v", bin.Name, err)
	}
	if contents.Error != "" {
		t.Fatalf("%s: etcd cannot read this log: %s", bin.Name, contents.Error)
	}
	return contents
}

func terminated(s *harness.Server) error { _, err := s.Terminate(); return err }
func killed(s *harness.Server) error     { s.Kill(); return nil }

// TestSameEntries: the entries of the script's requests say the same in both
// logs, in the bytes that etcd would write, but for the ids in their headers,
// whose form is compared apart.
func TestSameEntries(t *testing.T) {
	for name, end := range map[string]func(*harness.Server) error{"terminated": terminated, "killed": killed} {
		t.Run(name, func(t *testing.T) {
			want := requests(t, ran(t, harness.Reference(t), end))
			got := requests(t, ran(t, harness.Subject(t), end))
			if len(want) != 16 { // of the script's steps these go through the log
				t.Errorf("the reference logged %d requests, 16 are expected", len(want))
			}
			sameLines(t, "request in the log", want, got)
		})
	}
}

// requests are the clients' requests of a log in order: each without its
// header, and the header's shape.
func requests(t *testing.T, c waldir.Contents) []string {
	t.Helper()
	var out []string
	next := c.Start.Index + 1
	for _, e := range c.Entries {
		if e.Index != next {
			t.Errorf("entry %d stands where %d is due", e.Index, next)
		}
		next++
		data, err := hex.DecodeString(e.Data)
		if err != nil {
			t.Fatal(err)
		}
		if e.Type != 0 || len(data) == 0 {
			continue // a conf change, or the empty entry of a new leader
		}
		request := &pb.InternalRaftRequest{}
		if err := proto.Unmarshal(data, request); err != nil {
			t.Errorf("entry %d is no raft request: %v", e.Index, err)
			continue
		}
		if len(request.ProtoReflect().GetUnknown()) > 0 {
			t.Errorf("entry %d holds fields that etcd does not know", e.Index)
		}
		if again, err := proto.Marshal(request); err != nil || !bytes.Equal(again, data) {
			t.Errorf("entry %d is not encoded as etcd encodes it (%v):\n is    %.200x\n etcd: %.200x", e.Index, err, data, again)
		}
		if request.ClusterVersionSet != nil || request.ClusterMemberAttrSet != nil || request.DowngradeInfoSet != nil {
			continue
		}
		out = append(out, withoutHeader(t, request)+headerShape(request))
	}
	return out
}

// headerField is the number of the header in a raft request.
const headerField = 100

// withoutHeader is the rest of a request, encoded anew: the ids in headers
// differ.
func withoutHeader(t *testing.T, request *pb.InternalRaftRequest) string {
	t.Helper()
	rest := proto.Clone(request).(*pb.InternalRaftRequest)
	rest.Header = nil
	text, err := proto.MarshalOptions{Deterministic: true}.Marshal(rest)
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(text)
}

func headerShape(r *pb.InternalRaftRequest) string {
	return fmt.Sprintf(" header=%v id=%v old-id=%v user=%q auth=%d",
		r.Header != nil, r.Header.GetID() != 0, r.ID != 0, r.Header.GetUsername(), r.Header.GetAuthRevision())
}

// TestLogHead: metadata names the member and the cluster, and the first
// entries are those of a new cluster of one.
func TestLogHead(t *testing.T) {
	shape := func(c waldir.Contents) []string {
		raw, err := hex.DecodeString(c.Metadata)
		if err != nil {
			t.Fatal(err)
		}
		metadata := &pb.Metadata{}
		if err := proto.Unmarshal(raw, metadata); err != nil {
			t.Fatal(err)
		}
		out := []string{fmt.Sprintf("metadata: member %x cluster %x", metadata.GetNodeID(), metadata.GetClusterID())}
		for _, s := range c.Snapshots {
			out = append(out, fmt.Sprintf("snapshot record: %+v", s))
		}
		for i, e := range c.Entries {
			if i == 4 {
				break
			}
			out = append(out, fmt.Sprintf("entry %d: type %d, empty %v", e.Index, e.Type, e.Data == ""))
		}
		out = append(out, fmt.Sprintf("vote set: %v", c.HardState.Vote == metadata.GetNodeID()))
		return out
	}
	run := func(bin harness.Binary) []string {
		server := harness.Start(t, bin, harness.Options{AdvertisePeerURL: "http://127.0.0.1:23801"})
		server.Kill()
		contents, err := waldir.Read(filepath.Join(server.Dir, "member", "wal"), "")
		if err != nil || contents.Error != "" {
			t.Fatalf("%s: %v %s", bin.Name, err, contents.Error)
		}
		return shape(contents)
	}
	want, got := run(harness.Reference(t)), run(harness.Subject(t))
	sameLines(t, "line", want, got)
}

// sameLines compares two lists, one by one; the shorter one is filled up.
func sameLines(t *testing.T, what string, want, got []string) {
	t.Helper()
	for i := range max(len(want), len(got)) {
		var a, b string
		if i < len(want) {
			a = want[i]
		}
		if i < len(got) {
			b = got[i]
		}
		if a != b {
			t.Errorf("%s %d:\n reference %.300s\n subject   %.300s", what, i, a, b)
		}
	}
}

// TestSnapshots: with a low snapshot count the log holds snapshot records that
// etcd takes, each with a .snap file that belongs to it, which says about the
// members what etcd's says.
func TestSnapshots(t *testing.T) {
	const advertised = "http://127.0.0.1:23803"
	run := func(bin harness.Binary) (members []string) {
		server := harness.Start(t, bin, harness.Options{Args: []string{"--snapshot-count=100"}, AdvertisePeerURL: advertised})
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		kv := pb.NewKVClient(server.Conn(t))
		for i := range 450 {
			if _, err := kv.Put(ctx, &pb.PutRequest{Key: fmt.Append(nil, i%10), Value: fmt.Append(nil, i)}); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := server.Terminate(); err != nil {
			t.Fatal(err)
		}
		c, err := waldir.Read(filepath.Join(server.Dir, "member", "wal"), filepath.Join(server.Dir, "member", "snap"))
		if err != nil || c.Error != "" {
			t.Fatalf("%s: %v %s", bin.Name, err, c.Error)
		}
		if c.Start.Index == 0 || len(c.Start.Voters) != 1 {
			t.Errorf("%s: after 450 entries the newest snapshot record is %+v", bin.Name, c.Start)
		}
		if last := c.Start.Index + uint64(len(c.Entries)); last < 450 {
			t.Errorf("%s: the log ends at entry %d", bin.Name, last)
		}
		if c.SnapFile == nil || c.SnapFile.Index != c.Start.Index || c.SnapFile.Term != c.Start.Term {
			t.Fatalf("%s: the newest .snap file is %+v, the record %+v", bin.Name, c.SnapFile, c.Start)
		}
		return v2Paths(t, c.SnapFile.Data, server.ClientURL)
	}
	sameLines(t, "node of the .snap file's tree", run(harness.Reference(t)), run(harness.Subject(t)))
}

// v2Paths lists the nodes of the old store's JSON, which is what a .snap file
// holds: path and value, or path alone for a directory.
func v2Paths(t *testing.T, data, clientURL string) []string {
	t.Helper()
	raw, err := hex.DecodeString(data)
	if err != nil {
		t.Fatal(err)
	}
	type node struct {
		Path, Value string
		Children    map[string]*node
	}
	var tree struct{ Root *node }
	if err := json.Unmarshal(raw, &tree); err != nil {
		t.Fatalf("a .snap file's data is no JSON of the old store: %v: %.200s", err, raw)
	}
	var out []string
	var walk func(n *node)
	walk = func(n *node) {
		if n == nil {
			return
		}
		out = append(out, n.Path+" = "+strings.ReplaceAll(n.Value, clientURL, "CLIENT"))
		for _, child := range n.Children {
			walk(child)
		}
	}
	walk(tree.Root)
	sort.Strings(out)
	return out
}
