package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"milepost.dev/test/compat/harness"
)

// onSmallDisk puts a member that was never started on a disk of its own.
func onSmallDisk(t *testing.T, c *Cluster, m *Member, megabytes int) *Disk {
	t.Helper()
	disk, err := c.SmallDisk(m, megabytes<<20)
	must(t, err)
	t.Cleanup(disk.Close)
	return disk
}

// TestFullDisk: the disk of one member, the leader, is full. Etcd's member ends
// by itself; ours gives leadership away, goes on as long as there is room in what
// it has reserved, then waits for more. Either way the others take writes, no
// alarm is raised, nothing that was acknowledged is lost, and once there is room
// the member has it all.
func TestFullDisk(t *testing.T) {
	parallel(t)
	ctx := deadline(t, 3*time.Minute)
	c := prepare(t, of(t, 3))
	victim := c.Members()[1]
	disk := onSmallDisk(t, c, victim, 400)
	must(t, c.Start(ctx))
	counts := newTally(t, "writes beside a full disk", "writes after it", "equal hashes")
	lead(ctx, t, c, victim)
	w := newWriter(t, without(c.Members(), victim))
	w.puts(ctx, t, 1)
	must(t, disk.Fill())
	// More than its log has room for: it has reserved a segment of 64 MB, and has as much to give up.
	const most = 1500
	w.puts(ctx, t, most)
	counts.add("writes beside a full disk", most)
	leader, err := c.Leader(ctx)
	must(t, err)
	if leader == victim {
		t.Errorf("%s, whose disk is full, still leads", victim)
	}
	if !harness.SubjectIsReference(t) {
		for _, line := range []string{"there is little room on the disk", "gives leadership away", "the disk is full: the log waits for room"} {
			harness.Eventually(t, 30*time.Second, func() error {
				if strings.Contains(victim.Log(), line) {
					return nil
				}
				// Its store may have run out of room first: then what is in the log waits to be applied.
				if behind, err := isBehind(ctx, victim, leader); strings.HasPrefix(line, "the disk is full") && (err != nil || behind) {
					return err
				}
				return fmt.Errorf("%s does not say: %s", victim, line)
			})
		}
		if !victim.Running() {
			t.Errorf("it has ended: %s", victim.LogTail(3))
		}
	}
	t.Logf("the member with the full disk runs: %v; it says: %s", victim.Running(), victim.LogTail(1))
	alarms, err := w.client.AlarmList(ctx)
	must(t, err)
	if len(alarms.Alarms) != 0 {
		t.Errorf("alarms: %v", alarms.Alarms)
	}
	must(t, disk.Empty())
	if !victim.Running() {
		must(t, victim.Start())
	}
	must(t, victim.WaitReady(ctx))
	w.puts(ctx, t, 20)
	counts.add("writes after it", 20)
	_, err = c.SameHashes(ctx)
	must(t, err)
	counts.add("equal hashes", 3)
	w.allAt(ctx, t, victim)
}

// isBehind: has one member applied less than another?
func isBehind(ctx context.Context, one, other *Member) (bool, error) {
	applied := make([]uint64, 2)
	for i, m := range []*Member{one, other} {
		conn, err := m.Conn()
		if err != nil {
			return false, err
		}
		defer conn.Close()
		status, err := pb.NewMaintenanceClient(conn).Status(ctx, &pb.StatusRequest{})
		if err != nil {
			return false, err
		}
		applied[i] = status.RaftAppliedIndex
	}
	return applied[0] < applied[1], nil
}

// TestAllDisksFull: nobody can stand in. The cluster refuses writes with the
// alarm NOSPACE instead of stopping, reads and deletes go on, and once there is
// room and the alarm is disarmed, so do writes.
func TestAllDisksFull(t *testing.T) {
	parallel(t)
	harness.NeedOwnSubject(t) // etcd's members end
	ctx := deadline(t, 3*time.Minute)
	c := prepare(t, of(t, 3))
	var disks []*Disk
	for _, m := range c.Members() {
		disks = append(disks, onSmallDisk(t, c, m, 160))
	}
	must(t, c.Start(ctx))
	counts := newTally(t, "refused with NOSPACE", "writes after it", "equal hashes")
	w := newWriter(t, c.Members())
	w.puts(ctx, t, 5)
	for _, disk := range disks {
		must(t, disk.Fill())
	}
	for {
		err := w.put(ctx)
		if err != nil && strings.Contains(err.Error(), "database space exceeded") {
			break
		}
		if w.tried > 2000 || ctx.Err() != nil {
			t.Fatalf("%d writes, and the last ended with %v", w.tried, err)
		}
	}
	counts.add("refused with NOSPACE", 1)
	t.Logf("refused after %d writes", len(w.written))
	for _, m := range c.Members() {
		w.allAt(ctx, t, m)
	}
	_, err := w.client.Delete(ctx, "full/1")
	must(t, err)
	w.written = slices.DeleteFunc(w.written, func(key string) bool { return key == "full/1" })
	for _, disk := range disks {
		must(t, disk.Empty())
	}
	for range 20 {
		harness.Eventually(t, 30*time.Second, func() error {
			err := w.put(ctx)
			if err != nil { // the room is measured now and then: it may be raised once more
				_, disarmed := w.client.AlarmDisarm(ctx, &clientv3.AlarmMember{})
				err = errors.Join(err, disarmed)
			}
			return err
		})
		counts.add("writes after it", 1)
	}
	_, err = c.SameHashes(ctx)
	must(t, err)
	counts.add("equal hashes", 3)
	for _, m := range c.Members() {
		w.allAt(ctx, t, m)
	}
}

// TestMostDisksFull: those of two of three members are, and the third leads. No
// quorum can keep what is written, so writes end without an answer, as with two
// dead members; the members live, what was acknowledged can be read, and once
// there is room all goes on by itself.
func TestMostDisksFull(t *testing.T) {
	parallel(t)
	harness.NeedOwnSubject(t) // etcd's members end
	ctx := deadline(t, 3*time.Minute)
	c := prepare(t, of(t, 3))
	leader := c.Members()[0]
	var disks []*Disk
	for _, m := range without(c.Members(), leader) {
		disks = append(disks, onSmallDisk(t, c, m, 160))
	}
	must(t, c.Start(ctx))
	counts := newTally(t, "writes without an answer", "members that read", "writes after it", "equal hashes")
	lead(ctx, t, c, leader)
	w := newWriter(t, c.Members())
	w.puts(ctx, t, 5)
	for _, disk := range disks {
		must(t, disk.Fill())
	}
	// The log goes on in what it has reserved, a segment of 64 MB.
	for failures := 0; failures < 3; {
		switch err := w.put(ctx); {
		case err == nil:
			failures = 0
		case strings.Contains(err.Error(), "database space exceeded"):
			t.Fatalf("the leader's disk has room: %v", err)
		default:
			failures++
			counts.add("writes without an answer", 1)
		}
		if w.tried > 2000 || ctx.Err() != nil {
			t.Fatalf("%d of %d writes were acknowledged", len(w.written), w.tried)
		}
	}
	t.Logf("%d writes were acknowledged before there was no room", len(w.written))
	for _, m := range c.Members() {
		if !m.Running() {
			t.Fatalf("%s has ended: %s", m, m.LogTail(3))
		}
		client, err := m.Client()
		must(t, err)
		_, err = client.Get(ctx, "full/1", clientv3.WithSerializable())
		must(t, err)
		client.Close()
		counts.add("members that read", 1)
	}
	// The others may lack what one of them had no room for.
	w.allAt(ctx, t, leader, clientv3.WithSerializable())
	for _, disk := range disks {
		must(t, disk.Empty())
	}
	w.puts(ctx, t, 20)
	counts.add("writes after it", 20)
	_, err := c.SameHashes(ctx)
	must(t, err)
	counts.add("equal hashes", 3)
	for _, m := range c.Members() {
		w.allAt(ctx, t, m)
	}
}
