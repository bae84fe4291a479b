package cluster

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"milepost.dev/test/compat/harness"
)

// TestCorruptMember: the network falsifies what one member is sent, so that it
// holds other data. The leader's comparison of what compactions leave finds that
// one and raises CORRUPT for it, which refuses writes; the member itself does not
// start again beside the others; removed, wiped and added again it is whole, and
// once the alarm is disarmed all is as before. With and without an etcd among the
// honest ones.
func TestCorruptMember(t *testing.T) {
	parallel(t)
	subject := harness.Subject(t)
	for _, trial := range []struct {
		name string
		bins []harness.Binary
	}{
		{"of three alike", []harness.Binary{subject, subject, subject}},
		{"beside an etcd", []harness.Binary{subject, harness.Reference(t), subject}},
	} {
		t.Run(trial.name, func(t *testing.T) { corrupt(t, trial.bins) })
	}
}

func corrupt(t *testing.T, bins []harness.Binary) {
	t.Helper()
	ctx := deadline(t, 3*time.Minute)
	c := started(t, bins, "--compact-hash-check-time=1s", "--feature-gates=InitialCorruptCheck=true,CompactHashCheck=true")
	counts := newTally(t, "values falsified", "alarm raised", "write refused", "start refused", "equal hashes")
	leader, victim := c.Members()[0], c.Members()[2]
	lead(ctx, t, c, leader)
	client, err := leader.Client()
	must(t, err)
	defer client.Close()
	id := memberID(ctx, t, client, victim)

	falsify(c, victim)
	for i := range 20 {
		_, err := client.Put(ctx, fmt.Sprintf("corrupt/%d", i), honest)
		must(t, err)
	}
	must(t, victim.WaitReady(ctx)) // it has them all
	counts.add("values falsified", int(c.Net.Tally.Mangled.Load()))
	c.Net.Heal()

	// A comparison is of compactions, some seconds apart so that all members still
	// have what is compared; a second one at another revision confirms it.
	var compacted time.Time
	harness.Eventually(t, 90*time.Second, func() error {
		alarms, err := client.AlarmList(ctx)
		if err != nil {
			return err
		}
		for _, alarm := range alarms.Alarms {
			switch {
			case alarm.Alarm != pb.AlarmType_CORRUPT || (alarm.MemberID != id && alarm.MemberID != 0):
				t.Fatalf("alarm %v, corrupt is %x", alarm, id)
			case alarm.MemberID == id:
				return nil
			default: // an honest one did not answer in time: nobody is in the majority
				if _, err := client.AlarmDisarm(ctx, &clientv3.AlarmMember{}); err != nil {
					return err
				}
			}
		}
		if time.Since(compacted) > 3*time.Second {
			put, err := client.Put(ctx, "more", "x")
			if err == nil {
				_, err = client.Compact(ctx, put.Header.Revision)
			}
			if err == nil { // there is another revision than the compaction's
				_, err = client.Put(ctx, "more", "y")
			}
			if err != nil {
				return err
			}
			compacted = time.Now()
		}
		return fmt.Errorf("no alarm; the leader says: %s", leader.LogTail(2))
	})
	counts.add("alarm raised", 1)
	if _, err := client.Put(ctx, "refused", "x"); err == nil || !strings.Contains(err.Error(), "corrupt") {
		t.Errorf("a write of a corrupt cluster: %v", err)
	}
	counts.add("write refused", 1)

	harness.Eventually(t, 30*time.Second, func() error {
		ahead, err := leader.Status(ctx)
		if err != nil {
			return err
		}
		behind, err := victim.Status(ctx)
		if err == nil && behind.Header.Revision < ahead.Header.Revision {
			err = fmt.Errorf("%s is at revision %d of %d", victim, behind.Header.Revision, ahead.Header.Revision)
		}
		return err
	})
	// What a compaction has left is told for its revision ever after, and is no
	// answer to who starts at that revision: this one has come further, and all of
	// it is in its store before it ends.
	harness.Eventually(t, 30*time.Second, func() error {
		if n := metric(ctx, t, victim, "milepost_store_overlay_changes"); n > 0 {
			return fmt.Errorf("%v changes wait for their commit", n)
		}
		return nil
	})
	_, err = victim.Terminate(30 * time.Second)
	must(t, err)
	before := len(victim.Log())
	must(t, victim.Start())
	how, err := victim.End(30 * time.Second)
	if err != nil || how != "exit 1" || !strings.Contains(victim.Log()[before:], "found data inconsistency with peers") {
		t.Errorf("started with other data: %s, %v: %s", how, err, victim.LogTail(3))
	}
	t.Logf("started with other data it ended with %s: %s", how, victim.LogTail(1))
	counts.add("start refused", 1)
	victim.Kill()

	must(t, victim.Wipe())
	change(ctx, t, client, func(ctx context.Context) error {
		_, err := client.MemberRemove(ctx, id)
		return err
	}, func(list []*pb.Member) bool { return find(list, victim) == nil })
	change(ctx, t, client, func(ctx context.Context) error {
		_, err := client.MemberAddAsLearner(ctx, []string{victim.PeerURL})
		return err
	}, func(list []*pb.Member) bool { return find(list, victim) != nil })
	c.Join(victim, without(c.Members(), victim)...)
	must(t, victim.Start())
	promote(ctx, t, c, victim)
	_, err = client.AlarmDisarm(ctx, &clientv3.AlarmMember{})
	must(t, err)
	must(t, c.WaitReady(ctx))
	writeThroughEach(ctx, t, c, "whole")
	_, err = c.SameHashes(ctx)
	must(t, err)
	counts.add("equal hashes", 3)
}
