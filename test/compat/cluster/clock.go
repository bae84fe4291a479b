package cluster

import (
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

//go:embed wallclock/wallclock.c
var wallClockSource []byte

// WallClock lets a wall clock of its own be set for a member that has not been
// started. It needs a C compiler, and a server that is linked dynamically.
func (m *Member) WallClock() (*WallClock, error) {
	source, library := filepath.Join(m.home, "wallclock.c"), filepath.Join(m.home, "wallclock.so")
	if err := os.WriteFile(source, wallClockSource, 0o644); err != nil {
		return nil, err
	}
	if out, err := exec.Command("cc", "-shared", "-fPIC", "-O1", "-o", library, source).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("a wall clock needs a C compiler: %w: %s", err, out)
	}
	w := &WallClock{member: m, file: filepath.Join(m.home, "wallclock")}
	m.wrap = append([]string{"env", "LD_PRELOAD=" + library, "WALL_CLOCK=" + w.file}, m.wrap...)
	return w, w.Set(0)
}

// WallClock is a member's.
type WallClock struct {
	member *Member
	file   string
}

// Set makes it wrong by so much, in whole seconds, from now on.
func (w *WallClock) Set(wrongBy time.Duration) error {
	seconds := binary.NativeEndian.AppendUint64(nil, uint64(int64(wrongBy/time.Second)))
	// In place: the member has it mapped.
	f, err := os.OpenFile(w.file, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(seconds, 0)
	return err
}

// Told is by how much the newest line of the member's log is wrong.
func (w *WallClock) Told() (time.Duration, error) {
	lines := strings.Split(strings.TrimSpace(w.member.Log()), "\n")
	var line struct{ TS time.Time }
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &line); err != nil {
		return 0, err
	}
	return time.Until(line.TS), nil
}
