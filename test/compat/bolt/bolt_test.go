// Package bolt lets real bbolt write databases as etcd does, ours read and write them again, and real bbolt judge that.
package bolt

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"milepost.dev/test/compat/harness"
)

// copier is the example of crates/bolt that reads a database and writes it again; `cargo test` builds it. Empty: etcd is
// on both sides.
func copier(t *testing.T) string {
	return harness.Example(t, "milepost-bolt", "bolt_copy", "BOLT_COPY")
}

// etcd's ten buckets.
var buckets = []string{"alarm", "auth", "authRoles", "authUsers", "cluster", "key", "lease", "members", "members_removed", "meta"}

// fill makes a database with a past: many transactions, deletions, free pages, inline buckets, large values.
func fill(t *testing.T, path string, options *bbolt.Options, dice *rand.Rand) {
	db, err := bbolt.Open(path, 0o600, options)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	revision := uint64(1)
	for range 20 {
		err := db.Update(func(tx *bbolt.Tx) error {
			for _, name := range buckets {
				b, err := tx.CreateBucketIfNotExists([]byte(name))
				if err != nil {
					return err
				}
				b.FillPercent = 0.9
				if name != "key" && dice.Intn(3) > 0 {
					continue
				}
				for range dice.Intn(400) {
					key := make([]byte, 17)
					binary.BigEndian.PutUint64(key, revision)
					key[8] = '_'
					revision++
					size := dice.Intn(300)
					if dice.Intn(200) == 0 {
						size = dice.Intn(50_000)
					}
					value := make([]byte, size)
					dice.Read(value)
					if err := b.Put(key, value); err != nil {
						return err
					}
				}
				var gone [][]byte
				for k, _ := b.Cursor().First(); k != nil; k, _ = b.Cursor().Seek(append(k, 0)) {
					if dice.Intn(4) == 0 {
						gone = append(gone, bytes.Clone(k))
					}
				}
				for _, k := range gone {
					if err := b.Delete(k); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// contents are all items of a database whose pages bbolt has found in order.
func contents(t *testing.T, path string) map[string]string {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	items := map[string]string{}
	err = db.View(func(tx *bbolt.Tx) error {
		for err := range tx.Check() {
			t.Errorf("bbolt's check of %s: %v", filepath.Base(path), err)
		}
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			items[string(name)] = "bucket"
			return b.ForEach(func(k, v []byte) error {
				items[string(name)+"/"+string(k)] = string(v)
				return nil
			})
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return items
}

func TestDatabasesGoThroughOurs(t *testing.T) {
	program := copier(t)
	if program == "" {
		return // nothing of ours takes part
	}
	seed := time.Now().UnixNano() % 1_000_000
	t.Logf("seed %d", seed)
	dice := rand.New(rand.NewSource(seed))
	items, free, big := 0, 0, 0
	for i := range 12 {
		// As etcd opens it, and as bbolt does by itself.
		options := &bbolt.Options{NoFreelistSync: i%2 == 0, FreelistType: bbolt.FreelistMapType, NoSync: true}
		if i%3 == 2 {
			options.PageSize = 16384
		}
		dir := t.TempDir()
		from, to := filepath.Join(dir, "from.db"), filepath.Join(dir, "to.db")
		fill(t, from, options, dice)
		out, err := exec.Command(program, from, to).CombinedOutput()
		if err != nil {
			t.Fatalf("database %d: %v: %s", i, err, out)
		}
		var n, unused int
		if _, err := fmt.Sscanf(string(out), "%d items, %d free pages", &n, &unused); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		want, got := contents(t, from), contents(t, to)
		if len(want) != len(got) || n != len(want)-len(buckets) {
			t.Errorf("database %d: %d items became %d, ours counted %d", i, len(want), len(got), n)
		}
		for name, value := range want {
			if got[name] != value {
				t.Errorf("database %d: %q has %d bytes instead of %d", i, name, len(got[name]), len(value))
			}
			if len(value) > 16384 {
				big++
			}
		}
		items, free = items+n, free+unused
		// bbolt can go on with what ours wrote.
		fill(t, to, &bbolt.Options{NoFreelistSync: true, NoSync: true}, dice)
		contents(t, to)
	}
	t.Logf("%d items, %d free pages, %d values larger than a page", items, free, big)
	if items == 0 || free == 0 || big == 0 {
		t.Error("a kind of page was never read")
	}
}

func TestDamageIsToldFromData(t *testing.T) {
	program := copier(t)
	if program == "" {
		return
	}
	dice := rand.New(rand.NewSource(1))
	dir := t.TempDir()
	whole := filepath.Join(dir, "whole.db")
	fill(t, whole, &bbolt.Options{NoFreelistSync: true, NoSync: true}, dice)
	data, err := os.ReadFile(whole)
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]func([]byte) []byte{
		"no database":       func(b []byte) []byte { return []byte(strings.Repeat("hello ", 5000)) },
		"empty":             func(b []byte) []byte { return nil },
		"cut in the middle": func(b []byte) []byte { return b[:len(b)/8192*4096] },
		"both metas":        func(b []byte) []byte { b[30] ^= 1; b[4096+30] ^= 1; return b },
	}
	for name, change := range cases {
		path := filepath.Join(dir, "damaged.db")
		if err := os.WriteFile(path, change(bytes.Clone(data)), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(program, path, filepath.Join(dir, "out.db")).CombinedOutput()
		if err == nil {
			t.Errorf("%s: taken for sound: %s", name, out)
		}
		if strings.Contains(string(out), "panicked") {
			t.Errorf("%s: %s", name, out)
		}
	}
}
