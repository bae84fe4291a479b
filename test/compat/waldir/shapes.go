package waldir

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

// shape is one kind of log directory and how to make it.
type shape struct {
	name string
	// segmentBytes is the size at which etcd begins a new segment.
	segmentBytes int64
	write        func(*author) error
}

// shapes are all of them. After `write` some are damaged on purpose; what etcd
// itself makes of that is what is expected.
var shapes = []shape{
	{"fresh", 1 << 20, func(*author) error { return nil }},
	{"entries", 64_000_000, func(a *author) error { return a.append(1, 50) }},
	{"states", 1 << 20, func(a *author) error {
		for commit := range uint64(20) {
			if err := a.state(3, 77, commit); err != nil {
				return err
			}
		}
		return nil
	}},
	{"segments", 16_384, func(a *author) error { return a.append(1, 120) }},
	{"overwritten", 1 << 20, func(a *author) error {
		a.commitAtMost = 10
		if err := a.append(1, 20); err != nil {
			return err
		}
		a.commitAtMost = 0
		a.last = 10 // a new leader replaces the uncommitted tail
		return a.append(2, 5)
	}},
	{"large", 64_000_000, func(a *author) error {
		for _, size := range []int{1, 511, 4096, 1_572_864, 5_000_000, 3} {
			if err := a.save(1, bytes.Repeat([]byte{byte(size)}, size)); err != nil {
				return err
			}
		}
		return nil
	}},
	{"snapshot", 1 << 20, func(a *author) error {
		if err := a.append(1, 60); err != nil {
			return err
		}
		if err := a.snapshot(); err != nil {
			return err
		}
		return a.append(2, 40)
	}},
	{"released", 16_384, func(a *author) error {
		for range 3 {
			if err := a.append(1, 80); err != nil {
				return err
			}
			if err := a.snapshot(); err != nil {
				return err
			}
		}
		if err := a.append(1, 30); err != nil {
			return err
		}
		return a.dropSegmentsBefore(a.snapped)
	}},
	{"torn-end", 1 << 20, func(a *author) error {
		if err := a.append(1, 30); err != nil {
			return err
		}
		return a.damage(func(log []byte, entries []frame) []byte { return log[:entries[29].end-11] })
	}},
	{"torn-zeros", 1 << 20, func(a *author) error {
		if err := a.append(1, 10); err != nil {
			return err
		}
		if err := a.save(1, bytes.Repeat([]byte{0xaa}, 4000)); err != nil {
			return err
		}
		return a.damage(func(log []byte, entries []frame) []byte {
			sector := (entries[10].start/512 + 2) * 512 // wholly inside the record
			clear(log[sector : sector+512])
			return log
		})
	}},
	{"flipped-middle", 1 << 20, func(a *author) error {
		if err := a.append(1, 30); err != nil {
			return err
		}
		return a.damage(func(log []byte, entries []frame) []byte {
			log[(entries[14].start+entries[14].end)/2] ^= 0x10 // among its data
			return log
		})
	}},
	{"flipped-last", 1 << 20, func(a *author) error {
		if err := a.append(1, 10); err != nil {
			return err
		}
		if err := a.save(1, bytes.Repeat([]byte{0x55}, 100)); err != nil {
			return err
		}
		return a.damage(func(log []byte, entries []frame) []byte {
			log[entries[10].end-20] ^= 0x01
			return log
		})
	}},
	{"gap", 1 << 20, func(a *author) error {
		if err := a.append(1, 10); err != nil {
			return err
		}
		a.last += 3
		return a.append(1, 2)
	}},
	{"lost-segment", 16_384, func(a *author) error {
		if err := a.append(1, 160); err != nil {
			return err
		}
		names, err := a.segments()
		if err != nil {
			return err
		}
		return os.Remove(filepath.Join(a.walDir, names[1]))
	}},
}

// ShapeNames lists what Write makes.
func ShapeNames() []string {
	var names []string
	for _, s := range shapes {
		names = append(names, s.name)
	}
	return names
}

// Write makes one directory per shape below dir: SHAPE/wal, SHAPE/snap, and
// SHAPE/expect.json with the Contents that etcd reads from it.
func Write(dir string) error {
	for _, s := range shapes {
		if err := writeShape(filepath.Join(dir, s.name), s); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

func writeShape(dir string, s shape) error {
	before := wal.SegmentSizeBytes
	wal.SegmentSizeBytes = s.segmentBytes
	defer func() { wal.SegmentSizeBytes = before }()
	a := &author{walDir: filepath.Join(dir, "wal"), snapDir: filepath.Join(dir, "snap"), lg: zap.NewNop()}
	if err := os.MkdirAll(a.snapDir, 0o700); err != nil {
		return err
	}
	metadata, err := proto.Marshal(&pb.Metadata{NodeID: proto.Uint64(0xdead_beef_0000_0001), ClusterID: proto.Uint64(0x1234)})
	if err != nil {
		return err
	}
	if a.log, err = wal.Create(a.lg, a.walDir, metadata); err != nil {
		return err
	}
	if err := s.write(a); err != nil {
		return err
	}
	if a.log != nil {
		if err := a.log.Close(); err != nil {
			return err
		}
	}
	contents, err := Read(a.walDir, a.snapDir)
	if err != nil {
		return err
	}
	text, err := json.MarshalIndent(contents, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "expect.json"), append(text, '\n'), 0o644)
}

// author writes one log.
type author struct {
	walDir, snapDir string
	lg              *zap.Logger
	log             *wal.WAL
	last, snapped   uint64
	// commitAtMost holds the commit index back; 0: nothing does.
	commitAtMost uint64
}

// append writes entries of all sizes, each commits the one before.
func (a *author) append(term uint64, n int) error {
	for i := range n {
		data := bytes.Repeat([]byte{byte(i), 0, 0xff}, (i*37)%301)
		if err := a.save(term, data); err != nil {
			return err
		}
	}
	return nil
}

func (a *author) save(term uint64, data []byte) error {
	a.last++
	kind := raftpb.EntryNormal
	if a.last == 1 {
		kind = raftpb.EntryConfChange
		if len(data) == 0 {
			change := &raftpb.ConfChange{Id: proto.Uint64(1), Type: raftpb.ConfChangeAddNode.Enum(), NodeId: proto.Uint64(7)}
			var err error
			if data, err = proto.Marshal(change); err != nil {
				return err
			}
		}
	}
	commit := a.last - 1
	if a.commitAtMost > 0 {
		commit = min(commit, a.commitAtMost)
	}
	state := &raftpb.HardState{Term: proto.Uint64(term), Vote: proto.Uint64(7), Commit: proto.Uint64(commit)}
	return a.log.Save(state, []*raftpb.Entry{rawEntry(term, a.last, kind, data)})
}

func (a *author) state(term, vote, commit uint64) error {
	return a.log.Save(&raftpb.HardState{Term: proto.Uint64(term), Vote: proto.Uint64(vote), Commit: proto.Uint64(commit)}, nil)
}

// snapshot takes one at the newest committed entry: the .snap file first, then
// the log's record, as a server does.
func (a *author) snapshot() error {
	index := a.last - 1
	conf := &raftpb.ConfState{Voters: []uint64{1, 2, 3}}
	file := &raftpb.Snapshot{
		Data:     []byte(`{"Root":{}}`),
		Metadata: &raftpb.SnapshotMetadata{ConfState: conf, Index: proto.Uint64(index), Term: proto.Uint64(1)},
	}
	if err := snap.New(a.lg, a.snapDir).SaveSnap(file); err != nil {
		return err
	}
	if err := a.log.SaveSnapshot(&walpb.Snapshot{Index: proto.Uint64(index), Term: proto.Uint64(1), ConfState: conf}); err != nil {
		return err
	}
	a.snapped = index
	return a.log.ReleaseLockTo(index)
}

func (a *author) segments() ([]string, error) {
	entries, err := os.ReadDir(a.walDir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if filepath.Ext(e.Name()) == ".wal" {
			names = append(names, e.Name())
		}
	}
	sort.Strings(names)
	return names, nil
}

// dropSegmentsBefore removes what etcd's purger would: every segment before
// the last one that begins below index.
func (a *author) dropSegmentsBefore(index uint64) error {
	names, err := a.segments()
	if err != nil {
		return err
	}
	keep := 0
	for i, name := range names {
		var seq, first uint64
		if _, err := fmt.Sscanf(name, "%016x-%016x.wal", &seq, &first); err != nil {
			return err
		}
		if first < index {
			keep = i
		}
	}
	for _, name := range names[:keep] {
		if err := os.Remove(filepath.Join(a.walDir, name)); err != nil {
			return err
		}
	}
	return nil
}

// damage closes the log and changes the bytes of its only segment, given where
// its entries are.
func (a *author) damage(change func(log []byte, entries []frame) []byte) error {
	if err := a.log.Close(); err != nil {
		return err
	}
	a.log = nil
	names, err := a.segments()
	if err != nil {
		return err
	}
	path := filepath.Join(a.walDir, names[0])
	log, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	entries, err := entryFrames(log)
	if err != nil {
		return err
	}
	return os.WriteFile(path, change(log, entries), 0o600)
}
