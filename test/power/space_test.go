package power

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

func run(t *testing.T, words ...string) {
	t.Helper()
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s (this test mounts a small disk of its own and needs root)", strings.Join(words, " "), err, out)
	}
}

// smallDisk mounts a tmpfs of that many MiB for the length of the test.
func smallDisk(t *testing.T, megabytes int) string {
	dir := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	run(t, "mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%dm", megabytes), "tmpfs", dir)
	t.Cleanup(func() { exec.Command("umount", "-l", dir).Run() })
	return dir
}

// TestFullDisk fills a small disk. The member must refuse further writes with etcd's words and the NOSPACE alarm, keep every
// acknowledged one, come up again on the full disk, and go on once there is room and the alarm is disarmed.
func TestFullDisk(t *testing.T) {
	const before, after, valueBytes = 320, 640, 64 << 10
	disk, seat := smallDisk(t, before), freeSeat(t)
	dir := filepath.Join(disk, "member")
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	m, err := start(t, dir, seat)
	if err != nil {
		t.Fatal(err)
	}
	value, acknowledged := strings.Repeat("v", valueBytes), 0
	for {
		_, err = m.client.Put(ctx, fmt.Sprintf("k%06d", acknowledged), value)
		if err != nil {
			break
		}
		if acknowledged++; acknowledged*valueBytes > before<<20 {
			t.Fatalf("%d writes of %d bytes fit on a disk of %d MiB", acknowledged, valueBytes, before)
		}
	}
	if !strings.Contains(err.Error(), "mvcc: database space exceeded") {
		t.Fatalf("after %d writes: %v\n%s", acknowledged, err, tail(m.log))
	}
	t.Logf("refused after %d acknowledged writes", acknowledged)
	check := func(what string) {
		t.Helper()
		answer, err := m.client.Get(ctx, "k", clientv3.WithPrefix(), clientv3.WithCountOnly())
		if err != nil {
			t.Fatalf("%s: %v\n%s", what, err, tail(m.log))
		}
		// The write that was refused may have been carried out: etcd's rule.
		if n := int(answer.Count); n < acknowledged || n > acknowledged+1 {
			t.Fatalf("%s: %d keys for %d acknowledged writes", what, n, acknowledged)
		}
		alarms, err := m.client.AlarmList(ctx)
		if err != nil || len(alarms.Alarms) == 0 {
			t.Fatalf("%s: alarms %v, %v\n%s", what, alarms, err, tail(m.log))
		}
	}
	check("on the full disk")
	m.kill()
	if m, err = start(t, dir, seat); err != nil {
		t.Fatalf("start on the full disk: %v\n%s", err, tail(m.log))
	}
	check("after a restart on the full disk")
	deleted, err := m.client.Delete(ctx, "k0000", clientv3.WithPrefix())
	if err != nil || deleted.Deleted == 0 {
		t.Fatalf("a delete on the full disk: %v %v\n%s", deleted, err, tail(m.log))
	}
	if _, err := m.client.Compact(ctx, deleted.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatalf("a compaction on the full disk: %v\n%s", err, tail(m.log))
	}
	run(t, "mount", "-o", fmt.Sprintf("remount,size=%dm", after), disk)
	if _, err := m.client.AlarmDisarm(ctx, &clientv3.AlarmMember{}); err != nil {
		t.Fatalf("disarm: %v", err)
	}
	if _, err := m.client.Put(ctx, "after", "there is room"); err != nil {
		t.Fatalf("a write after the disk grew: %v\n%s", err, tail(m.log))
	}
	m.kill()
}

func tail(path string) string {
	text, _ := os.ReadFile(path)
	if most := 3000; len(text) > most {
		text = text[len(text)-most:]
	}
	return string(text)
}
