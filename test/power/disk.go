package power

import (
	"math/rand"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

const sector = 512

// Tally counts what the cuts met. A zero at the end means that the test did not test.
type Tally struct {
	Cuts, SectorsKept, SectorsDropped, DirectoryChangesDropped, CutsInsideASync, CutsAfterAnAcknowledgement int
}

// image is a disk as a power cut leaves it: what files hold for certain, what names lead to them.
type image struct {
	contents map[int][]byte
	names    map[string]int
	dirs     map[string]bool
	// late holds what a sector in the cache has and the disk has not: a sector reaches the disk as a whole, with
	// everything that was written to it before.
	late map[place][]piece
}

// place is one sector of one file.
type place struct {
	file   int
	sector int64
}

type piece struct {
	offset int64
	data   []byte
}

// cut rebuilds the disk as it could be found after the power went right after events[:n].
func cut(events []event, n int, dice *rand.Rand, tally *Tally) *image {
	ended := map[int]bool{}
	for _, e := range events[:n] {
		if e.kind == kindSyncEnd || e.kind == kindSyncDirEnd {
			ended[e.sync] = true
		}
	}
	// The last sync of each file that both began and ended before the cut makes all that was written before its begin certain.
	certain, certainDir := map[int]int{}, 0
	for i, e := range events[:n] {
		switch e.kind {
		case kindSyncBegin:
			if ended[e.sync] {
				certain[e.file] = i
			} else {
				tally.CutsInsideASync++
			}
		case kindSyncDirBegin:
			if ended[e.sync] {
				certainDir = i
			}
		}
	}
	changes := 0
	for i, e := range events[:n] {
		if i >= certainDir && isDirectoryChange(e.kind) {
			changes++
		}
	}
	keep := dice.Intn(changes + 1)
	tally.DirectoryChangesDropped += changes - keep
	img := &image{contents: map[int][]byte{}, names: map[string]int{}, dirs: map[string]bool{}, late: map[place][]piece{}}
	for i, e := range events[:n] {
		if isDirectoryChange(e.kind) {
			if i < certainDir || keep > 0 {
				if i >= certainDir {
					keep--
				}
				img.change(e)
			}
			continue
		}
		img.bytes(e, i < certain[e.file] || e.direct, dice, tally)
	}
	return img
}

func isDirectoryChange(k kind) bool {
	return k == kindCreate || k == kindRename || k == kindRemove || k == kindMkdir
}

func (img *image) change(e event) {
	switch e.kind {
	case kindCreate:
		img.names[e.path] = e.file
	case kindMkdir:
		img.dirs[e.path] = true
	case kindRemove:
		delete(img.names, e.path)
		delete(img.dirs, e.path)
	case kindRename:
		for _, path := range sortedKeys(img.names) {
			if path == e.path || strings.HasPrefix(path, e.path+"/") {
				img.names[e.to+path[len(e.path):]] = img.names[path]
				delete(img.names, path)
			}
		}
		for _, path := range sortedKeys(img.dirs) {
			if path == e.path || strings.HasPrefix(path, e.path+"/") {
				img.dirs[e.to+path[len(e.path):]] = true
				delete(img.dirs, path)
			}
		}
	}
}

func (img *image) bytes(e event, certain bool, dice *rand.Rand, tally *Tally) {
	switch e.kind {
	case kindSize:
		if !certain && dice.Intn(2) == 0 {
			return
		}
		have := img.contents[e.file]
		if int64(len(have)) < e.size {
			img.contents[e.file] = append(have, make([]byte, e.size-int64(len(have)))...)
		} else if e.data != nil {
			img.contents[e.file] = have[:e.size]
			for at := range img.late {
				if at.file == e.file && at.sector*sector >= e.size {
					delete(img.late, at) // cut off in the cache as well
				}
			}
		}
	case kindWrite:
		for start := 0; start < len(e.data); {
			end := min(len(e.data), start+sector-int(e.offset+int64(start))%sector)
			at := place{e.file, (e.offset + int64(start)) / sector}
			img.late[at] = append(img.late[at], piece{e.offset + int64(start), e.data[start:end]})
			if certain || dice.Intn(2) == 0 {
				for _, p := range img.late[at] {
					img.put(e.file, p.offset, p.data)
				}
				delete(img.late, at)
				if !certain {
					tally.SectorsKept++
				}
			} else {
				tally.SectorsDropped++
			}
			start = end
		}
	}
}

func (img *image) put(file int, offset int64, data []byte) {
	have := img.contents[file]
	if need := offset + int64(len(data)); int64(len(have)) < need {
		have = append(have, make([]byte, need-int64(len(have)))...)
	}
	copy(have[offset:], data)
	img.contents[file] = have
}

// write lays the image out below dir, taking the paths below root.
func (img *image) write(root, dir string) error {
	for _, path := range sortedKeys(img.dirs) {
		if rest, ok := strings.CutPrefix(path, root+"/"); ok {
			if err := os.MkdirAll(filepath.Join(dir, rest), 0o700); err != nil {
				return err
			}
		}
	}
	for _, path := range sortedKeys(img.names) {
		rest, ok := strings.CutPrefix(path, root+"/")
		if !ok {
			continue
		}
		target := filepath.Join(dir, rest)
		if _, err := os.Stat(filepath.Dir(target)); err != nil {
			continue // its directory is not there: neither is the file
		}
		if err := writeSparse(target, img.contents[img.names[path]]); err != nil {
			return err
		}
	}
	return nil
}

// writeSparse leaves holes for zeros: log segments are mostly preallocated emptiness.
func writeSparse(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(int64(len(data))); err != nil {
		return err
	}
	const block = 4096
	zero := make([]byte, block)
	for start := 0; start < len(data); start += block {
		end := min(len(data), start+block)
		if string(data[start:end]) == string(zero[:end-start]) {
			continue
		}
		if _, err := f.WriteAt(data[start:end], int64(start)); err != nil {
			return err
		}
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
