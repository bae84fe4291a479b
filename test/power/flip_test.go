package power

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestFlippedByteInTheStore changes one byte of a stored value behind the member's back. The read must fail and name the
// record, never serve the changed value; others go on; and the member says CORRUPT.
func TestFlippedByteInTheStore(t *testing.T) {
	dir, peer := filepath.Join(t.TempDir(), "member"), freeURL(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	m, err := start(t, dir, peer)
	if err != nil {
		t.Fatal(err)
	}
	needle := "needle-" + strings.Repeat("n", 100)
	if _, err := m.client.Put(ctx, "needle", needle); err != nil {
		t.Fatal(err)
	}
	// Enough behind it that the snapshot point, and so the store's durable index, passes it.
	for range 1000 {
		if _, err := m.client.Put(ctx, "hay", "hay"); err != nil {
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
	if m, err = start(t, dir, peer); err != nil {
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
