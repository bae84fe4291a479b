package wal

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"milepost.dev/test/compat/harness"
	"milepost.dev/test/compat/waldir"
)

// dumper is the example of crates/wal that prints a log as JSON lines; `cargo test` builds it. Empty: etcd is on both sides.
func dumper(t *testing.T) string {
	return harness.Example(t, "milepost-wal", "wal_dump", "WAL_DUMP")
}

// TestOurReader: logs written by etcd's code, whole, torn and damaged, read by ours.
func TestOurReader(t *testing.T) {
	dump := dumper(t)
	if dump == "" {
		return // nothing of ours takes part
	}
	dir := t.TempDir()
	if err := waldir.Write(dir); err != nil {
		t.Fatal(err)
	}
	whole, torn, refused := 0, 0, 0
	for _, name := range waldir.ShapeNames() {
		text, err := os.ReadFile(filepath.Join(dir, name, "expect.json"))
		if err != nil {
			t.Fatal(err)
		}
		var want waldir.Contents
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(dump, "--repair", filepath.Join(dir, name, "wal")).CombinedOutput()
		// A commit index above every entry: etcd comes up on it, ours calls it what it is, a log that has lost its end.
		if want.Error != "" || name == "states" {
			if err == nil {
				t.Errorf("%s: ours reads what must be refused:\n%.300s", name, out)
			}
			refused++
			continue
		}
		if err != nil {
			t.Errorf("%s: ours refuses: %.300s", name, out)
			continue
		}
		compareLog(t, name, out, want)
		if want.Repaired {
			torn++
		} else {
			whole++
		}
	}
	t.Logf("%d whole, %d torn, %d refused", whole, torn, refused)
	if whole == 0 || torn == 0 || refused == 0 {
		t.Error("a kind of log was never read")
	}
}

func compareLog(t *testing.T, name string, out []byte, want waldir.Contents) {
	t.Helper()
	entries := 0
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var line struct {
			State    *waldir.HardState `json:"state"`
			Snapshot *uint64           `json:"snapshot"`
			Entry    *waldir.Entry     `json:"entry"`
		}
		if !strings.HasPrefix(lines.Text(), "{") {
			continue
		}
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			t.Fatalf("%s: %v in %.200q", name, err, lines.Text())
		}
		switch {
		case line.State != nil && *line.State != want.HardState:
			t.Errorf("%s: hard state %+v, etcd reads %+v", name, *line.State, want.HardState)
		case line.Snapshot != nil && *line.Snapshot != want.Start.Index:
			t.Errorf("%s: begins after %d, etcd after %d", name, *line.Snapshot, want.Start.Index)
		case line.Entry != nil:
			if entries < len(want.Entries) && *line.Entry != want.Entries[entries] {
				t.Errorf("%s: entry %d is %.100v, etcd reads %.100v", name, entries, *line.Entry, want.Entries[entries])
			}
			entries++
		}
	}
	if entries != len(want.Entries) {
		t.Errorf("%s: %d entries, etcd reads %d", name, entries, len(want.Entries))
	}
}
