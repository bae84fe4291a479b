package harness

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Memory is the resident set of a process in bytes, by kind.
type Memory struct {
	// Anonymous pages: heap and stacks, what the process cannot give back.
	Anonymous int64
	// File-backed pages: mapped files, which the kernel may drop.
	File int64
}

// Memory reads the server's resident set from the kernel.
func (s *Server) Memory() (Memory, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", s.PID()))
	if err != nil {
		return Memory{}, err
	}
	defer f.Close()
	var m Memory
	scan := bufio.NewScanner(f)
	for scan.Scan() {
		fields := strings.Fields(scan.Text())
		if len(fields) < 2 {
			continue
		}
		var to *int64
		switch fields[0] {
		case "RssAnon:":
			to = &m.Anonymous
		case "RssFile:":
			to = &m.File
		default:
			continue
		}
		kib, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			return Memory{}, err
		}
		*to = kib << 10
	}
	return m, scan.Err()
}

// TreeDigest describes every file below dir: one line per file with mode,
// size, content hash and name. Equal digests mean that nothing was touched.
func TreeDigest(dir string) (string, error) {
	var lines []string
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		sum := "-"
		if info.Mode().IsRegular() {
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			hash := sha256.Sum256(content)
			sum = hex.EncodeToString(hash[:])
		}
		lines = append(lines, fmt.Sprintf("%s %s %s", info.Mode(), sum, name))
		return nil
	})
	sort.Strings(lines)
	return strings.Join(lines, "\n"), err
}

// IntEnv reads a whole number from the environment, with a default.
func IntEnv(t testing.TB, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s must be a whole number: %v", name, err)
	}
	return n
}

// Eventually asks `what` every few milliseconds until it returns nil, and
// fails with its last complaint when that does not happen in time.
func Eventually(t testing.TB, within time.Duration, what func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := what()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %v", within, err)
		}
		time.Sleep(pollEvery) // nothing to wait on: the answer is in another process
	}
}
