package cluster

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"milepost.dev/test/compat/harness"
	"milepost.dev/test/compat/waldir"
)

// script sends one request of each kind that goes through the log, but for users
// and roles, which the server under test does not know yet. Nothing stays behind.
//
// A new member's id comes from its URL and the second: each run needs a URL of
// its own.
func script(ctx context.Context, t *testing.T, conn *grpc.ClientConn, port int, settle func()) {
	t.Helper()
	kv, lease, members := pb.NewKVClient(conn), pb.NewLeaseClient(conn), pb.NewClusterClient(conn)
	put := func(key, value string) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key), Value: []byte(value)}}}
	}
	done := func(_ any, err error) {
		t.Helper()
		must(t, err)
	}
	done(kv.Put(ctx, &pb.PutRequest{Key: []byte("e/1"), Value: []byte("one"), PrevKv: true}))
	done(lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: 771, TTL: 600}))
	done(kv.Put(ctx, &pb.PutRequest{Key: []byte("e/2"), Value: bytes.Repeat([]byte("x"), 5000), Lease: 771}))
	done(kv.Put(ctx, &pb.PutRequest{Key: []byte("e/2"), IgnoreLease: true, Value: []byte("y")}))
	done(kv.Put(ctx, &pb.PutRequest{Key: []byte("e/2"), IgnoreValue: true}))
	done(kv.Txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: []byte("e/1"), Target: pb.Compare_VALUE, TargetUnion: &pb.Compare_Value{Value: []byte("one")}}},
		Success: []*pb.RequestOp{put("e/3", "three"), {Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{
			Failure: []*pb.RequestOp{put("e/4", "never")}, Success: []*pb.RequestOp{put("e/4", "four")},
		}}}},
		Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("e/"), RangeEnd: []byte("e0"), Limit: 3}}}},
	}))
	done(kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("e/"), RangeEnd: []byte("e0"), PrevKv: true}))
	done(lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: 771}))
	alarm := pb.NewMaintenanceClient(conn)
	done(alarm.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: 4711, Alarm: pb.AlarmType_NOSPACE}))
	done(alarm.Alarm(ctx, &pb.AlarmRequest{Action: pb.AlarmRequest_DEACTIVATE, MemberID: 4711, Alarm: pb.AlarmType_NOSPACE}))
	var added *pb.MemberAddResponse
	var err error
	for {
		added, err = members.MemberAdd(ctx, &pb.MemberAddRequest{PeerURLs: []string{fmt.Sprint("http://127.0.0.1:", port)}, IsLearner: true})
		if err == nil {
			break
		}
		if pause(ctx) != nil { // etcd wants to know its members for a few seconds first
			t.Fatal(err)
		}
	}
	settle()
	done(members.MemberUpdate(ctx, &pb.MemberUpdateRequest{ID: added.Member.ID, PeerURLs: []string{fmt.Sprint("http://127.0.0.1:", port+1)}}))
	settle()
	done(members.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: added.Member.ID}))
}

// TestEntriesOfBothKinds: one cluster of two etcds and one of ours; the same
// requests through an etcd and through ours, each as leader and as follower. The
// four times the log has the same bytes, but for the ids that a member chose.
func TestEntriesOfBothKinds(t *testing.T) {
	parallel(t)
	// etcd refuses changes of members for as long as it has not been connected for five seconds.
	ctx := deadline(t, 4*time.Minute)
	etcd := harness.Reference(t)
	c := started(t, []harness.Binary{etcd, etcd, harness.Subject(t)})
	first, ours := c.Members()[0], c.Members()[2]
	counts := newTally(t, "requests and changes of members", "entries that etcd would write so", "entries of another kind")
	trials := []struct {
		name            string
		leader, through *Member
	}{
		{"etcd leads, through etcd", first, first},
		{"etcd leads, through ours", first, ours},
		{"ours leads, through etcd", ours, first},
		{"ours leads, through ours", ours, ours},
	}
	for i, trial := range trials {
		lead(ctx, t, c, trial.leader)
		conn, err := trial.through.Conn()
		must(t, err)
		defer conn.Close()
		mark := func(end string) {
			_, err := pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "mark/%d/%s", i, end)})
			must(t, err)
		}
		// A leader that has not applied a change of members yet makes an empty entry of the next one, and an etcd that
		// asked waits for as long as its client. Ours keeps the next one back.
		settle := func() {
			if trial.leader == ours {
				return
			}
			harness.Eventually(t, time.Minute, func() error {
				asked, err := trial.through.Status(ctx)
				must(t, err)
				leads, err := trial.leader.Status(ctx)
				must(t, err)
				if leads.RaftAppliedIndex < asked.RaftAppliedIndex {
					return fmt.Errorf("%s has applied %d, %s %d", trial.leader, leads.RaftAppliedIndex, trial.through, asked.RaftAppliedIndex)
				}
				return nil
			})
		}
		mark("begin")
		script(ctx, t, conn, 11+2*i, settle)
		mark("end")
	}
	must(t, c.WaitReady(ctx))
	var windows [][]string
	for _, m := range c.Members() {
		if _, err := m.Terminate(30 * time.Second); err != nil {
			t.Fatal(err)
		}
		log, err := waldir.Read(filepath.Join(m.Dir, "member", "wal"), "")
		must(t, err)
		if log.Error != "" {
			t.Fatalf("etcd cannot read the log of %s: %s", m, log.Error)
		}
		theirs := split(t, log.Entries, counts)
		if len(theirs) != len(trials) {
			t.Fatalf("the log of %s has %d of %d scripts", m, len(theirs), len(trials))
		}
		if windows == nil {
			windows = theirs
		}
	}
	for i, trial := range trials {
		if len(windows[i]) < 13 {
			t.Errorf("%s: only %d entries", trial.name, len(windows[i]))
		}
		for n := range max(len(windows[i]), len(windows[0])) {
			var want, got string
			if n < len(windows[0]) {
				want = windows[0][n]
			}
			if n < len(windows[i]) {
				got = windows[i][n]
			}
			if want != got {
				t.Errorf("entry %d:\n %s: %.400s\n %s: %.400s", n, trials[0].name, want, trial.name, got)
			}
			counts.add("requests and changes of members", 1)
		}
	}
}

// split finds the scripts in a log, and takes out of each entry what a member
// chose: ids of requests and of new members.
func split(t *testing.T, entries []waldir.Entry, counts *tally) [][]string {
	t.Helper()
	var windows [][]string
	inside := false
	for _, e := range entries {
		data, err := hex.DecodeString(e.Data)
		must(t, err)
		text, marker := "", ""
		switch {
		case len(data) == 0: // a new leader's
			counts.add("entries of another kind", 1)
			continue
		case e.Type == 0:
			text, marker = requestText(t, e, data, counts)
		case e.Type == 1:
			text = changeText(t, e, data)
		default:
			t.Errorf("entry %d is of type %d", e.Index, e.Type)
		}
		switch {
		case strings.HasSuffix(marker, "/begin"):
			windows, inside = append(windows, nil), true
		case strings.HasSuffix(marker, "/end"):
			inside = false
		case inside && text != "":
			windows[len(windows)-1] = append(windows[len(windows)-1], text)
		}
	}
	return windows
}

func requestText(t *testing.T, e waldir.Entry, data []byte, counts *tally) (text, marker string) {
	t.Helper()
	request := &pb.InternalRaftRequest{}
	must(t, proto.Unmarshal(data, request))
	if len(request.ProtoReflect().GetUnknown()) > 0 {
		t.Errorf("entry %d holds fields that etcd does not know", e.Index)
	}
	if again, err := proto.Marshal(request); err != nil || !bytes.Equal(again, data) {
		t.Errorf("entry %d is not encoded as etcd encodes it (%v):\n is    %.200x\n etcd: %.200x", e.Index, err, data, again)
	}
	counts.add("entries that etcd would write so", 1)
	if put := request.Put; put != nil && bytes.HasPrefix(put.Key, []byte("mark/")) {
		marker = string(put.Key)
	}
	if request.ClusterVersionSet != nil || request.ClusterMemberAttrSet != nil || request.DowngradeInfoSet != nil {
		return "", ""
	}
	shape := fmt.Sprintf("header %v id %v old id %v user %q auth revision %d", request.Header != nil, request.Header.GetID() != 0,
		request.ID != 0, request.Header.GetUsername(), request.Header.GetAuthRevision())
	request.Header = nil
	rest, err := proto.MarshalOptions{Deterministic: true}.Marshal(request)
	must(t, err)
	return fmt.Sprintf("%s %.300s %x", shape, request, rest), marker
}

var idInContext = regexp.MustCompile(`("id":|:)\d+`)

func changeText(t *testing.T, e waldir.Entry, data []byte) string {
	t.Helper()
	change := &raftpb.ConfChange{}
	must(t, proto.Unmarshal(data, change))
	if again, err := proto.Marshal(change); err != nil || !bytes.Equal(again, data) {
		t.Errorf("entry %d is not encoded as etcd encodes it (%v):\n is    %x\n etcd: %x", e.Index, err, data, again)
	}
	return fmt.Sprintf("%s id %v node %v context %s", change.GetType(), change.GetId() != 0, change.GetNodeId() != 0,
		idInContext.ReplaceAllString(string(change.Context), "${1}N"))
}
