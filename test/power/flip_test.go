package power

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestFlippedByteInTheStore changes one byte of a stored value behind the member's back. The read must fail and name the
// record, never serve the changed value; others go on; and the member says CORRUPT. Among the newest records, which a start
// reads again, it is met by the start: that refuses, and says what to do.
func TestFlippedByteInTheStore(t *testing.T) {
	t.Run("merged", func(t *testing.T) { flippedByte(t, true) })
	t.Run("newest", func(t *testing.T) { flippedByte(t, false) })
}

func flippedByte(t *testing.T, merged bool) {
	t.Helper()
	dir, seat := filepath.Join(t.TempDir(), "member"), freeSeat(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	m, err := start(t, dir, seat)
	if err != nil {
		t.Fatal(err)
	}
	needle := "needle-" + strings.Repeat("n", 100)
	if _, err := m.client.Put(ctx, "needle", needle); err != nil {
		t.Fatal(err)
	}
	// What start asks for: beside a record in doubt no other is said to be absent.
	if _, err := m.client.Put(ctx, "first", "there"); err != nil {
		t.Fatal(err)
	}
	// Others beside it: a start looks at the newest records, and is not to come across this one.
	for i := range 200 {
		if _, err := m.client.Put(ctx, fmt.Sprintf("straw%03d", i), strings.Repeat("s", 100)); err != nil {
			t.Fatal(err)
		}
	}
	// Enough behind it that the snapshot point, and so the store's durable index, passes it.
	for range 1000 {
		if _, err := m.client.Put(ctx, "hay", "hay"); err != nil {
			t.Fatal(err)
		}
	}
	if merged {
		// A compaction has all that it covers merged first.
		at, err := m.client.Get(ctx, "hay")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.client.Compact(ctx, at.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
			t.Fatal(err)
		}
	}
	m.kill()
	flipped := 0
	stores, err := filepath.Glob(filepath.Join(dir, "member/store/*/data.mdb"))
	if err != nil || len(stores) != 1 {
		t.Fatalf("stores: %v %v", stores, err)
	}
	data, err := os.ReadFile(stores[0])
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; ; {
		next := bytes.Index(data[at:], []byte(needle))
		if next < 0 {
			break
		}
		data[at+next+20] ^= 1
		at, flipped = at+next+1, flipped+1
	}
	if flipped == 0 {
		t.Fatal("the value is not in the store's file")
	}
	if err := os.WriteFile(stores[0], data, 0o600); err != nil {
		t.Fatal(err)
	}
	m, err = start(t, dir, seat)
	if !merged {
		if log := tail(m.log); err == nil || !strings.Contains(log, "fails its check") || !strings.Contains(log, "restore") {
			t.Errorf("started with a damaged record to read again: %v\n%s", err, log)
		}
		return
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, tail(m.log))
	}
	defer m.kill()
	answer, err := m.client.Get(ctx, "needle", clientv3.WithSerializable())
	if err == nil {
		t.Fatalf("served: %v", answer.Kvs)
	}
	if !strings.Contains(err.Error(), "needle") && !strings.Contains(err.Error(), "checksum") {
		t.Errorf("the error does not name the record: %v", err)
	}
	if answer, err := m.client.Get(ctx, "hay"); err != nil || len(answer.Kvs) != 1 {
		t.Errorf("a sound record is not served: %v %v", answer, err)
	}
	// The alarm goes through the log: it comes soon, not at once.
	for range 50 {
		alarms, err := m.client.AlarmList(ctx)
		if err == nil && len(alarms.Alarms) > 0 && alarms.Alarms[0].Alarm.String() == "CORRUPT" {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("no CORRUPT alarm was raised\n%s", tail(m.log))
}

// TestDamagedWayToTheRecords changes a byte in every page that leads to others: the member must not start, and say why.
func TestDamagedWayToTheRecords(t *testing.T) {
	dir, seat := filepath.Join(t.TempDir(), "member"), freeSeat(t)
	m, err := start(t, dir, seat)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, m, 1500)
	m.kill()
	path := filepath.Join(dir, "member/store/1/data.mdb")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const page, branch = 4096, 1
	damaged := 0
	for at := 2 * page; at+page <= len(data); at += page {
		if data[at+10] == branch {
			data[at+page-6] ^= 1
			damaged++
		}
	}
	if damaged == 0 {
		t.Fatal("there is no branch in the store")
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if m, err = start(t, dir, seat); err == nil {
		m.kill()
		t.Fatal("it started")
	}
	mustSay(t, m, err, "data.mdb is damaged: page ")
}

// TestCutStoreFile cuts the file under a running member, as a failing disk would take pages away from it: it ends with one
// line that names the file.
func TestCutStoreFile(t *testing.T) {
	dir, seat := filepath.Join(t.TempDir(), "member"), freeSeat(t)
	m, err := start(t, dir, seat)
	if err != nil {
		t.Fatal(err)
	}
	defer m.client.Close()
	fill(t, m, 1500)
	if err := os.Truncate(filepath.Join(dir, "member/store/1/data.mdb"), 2*4096); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	// A read may need nothing but what is in memory; what is written is committed, which reads the way to its place first.
	// The client would ask again for as long as it may.
	asked := make(chan struct{})
	go func() {
		m.client.Put(ctx, "more", "x")
		m.client.Get(ctx, "fill", clientv3.WithPrefix())
		close(asked)
	}()
	defer func() { cancel(); <-asked }()
	select {
	case err = <-m.gone:
	case <-ctx.Done():
		t.Fatal("it goes on")
	}
	mustSay(t, m, err, "data.mdb cannot be read")
}

// fill writes keys and waits until the store has committed them.
func fill(t *testing.T, m *member, keys int) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for n := range keys {
		if _, err := m.client.Put(ctx, fmt.Sprintf("fill-%05d", n), strings.Repeat("f", 100)); err != nil {
			t.Fatal(err)
		}
	}
	// A generation is committed when it is half a second old; the hash waits for nothing but reads it all.
	for begin := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		status, err := m.client.Status(ctx, m.client.Endpoints()[0])
		if err != nil {
			t.Fatal(err)
		}
		if status.DbSizeInUse > int64(keys)*100 {
			return
		}
		if time.Since(begin) > 30*time.Second {
			t.Fatalf("the store does not commit: %+v", status)
		}
	}
}

func mustSay(t *testing.T, m *member, end error, sentence string) {
	text, err := os.ReadFile(m.log)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), sentence) || !strings.Contains(string(text), "from a backup") {
		t.Errorf("it ended (%v) without saying %q:\n%s", end, sentence, tail(m.log))
	}
	if strings.Contains(end.Error(), "signal") {
		t.Errorf("it crashed: %v", end)
	}
}
