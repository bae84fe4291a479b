// Package waldir reads and writes write-ahead logs with etcd's own code, so
// that two implementations of the format can be held against each other:
// directories that etcd wrote, with what must come out of them, for our reader,
// and a reader of etcd's for directories that our server wrote.
package waldir

import (
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/server/v3/etcdserver/api/snap"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"
)

// Contents is what a log directory says, in JSON's terms. Bytes are in hex.
type Contents struct {
	// Start is the newest snapshot record that is committed; Entries follow it.
	Start     Snapshot   `json:"start"`
	Metadata  string     `json:"metadata"`
	HardState HardState  `json:"hard_state"`
	Entries   []Entry    `json:"entries"`
	Snapshots []Snapshot `json:"snapshots"`
	// SnapFile is the newest .snap file that belongs to one of Snapshots.
	SnapFile *SnapFile `json:"snap_file,omitempty"`
	// Repaired tells that a torn tail was cut off first.
	Repaired bool `json:"repaired"`
	// Error is etcd's complaint when the directory cannot be read at all; then
	// the rest is empty.
	Error string `json:"error"`
}

// Snapshot is a snapshot record of the log.
type Snapshot struct {
	Index  uint64   `json:"index"`
	Term   uint64   `json:"term"`
	Voters []uint64 `json:"voters"`
}

// HardState is the last one in the log.
type HardState struct {
	Term   uint64 `json:"term"`
	Vote   uint64 `json:"vote"`
	Commit uint64 `json:"commit"`
}

// Entry is one raft entry. Type: 0 normal, 1 conf change, 2 conf change v2.
type Entry struct {
	Term  uint64 `json:"term"`
	Index uint64 `json:"index"`
	Type  int32  `json:"type"`
	Data  string `json:"data"`
}

// SnapFile is a .snap file.
type SnapFile struct {
	Index  uint64   `json:"index"`
	Term   uint64   `json:"term"`
	Voters []uint64 `json:"voters"`
	Data   string   `json:"data"`
}

// Read reads a log as a starting etcd does, on a copy, so that neither a torn
// tail nor a lock of the owner is touched. snapDir may be empty.
func Read(walDir, snapDir string) (Contents, error) {
	scratch, err := os.MkdirTemp("", "waldir")
	if err != nil {
		return Contents{}, err
	}
	defer os.RemoveAll(scratch)
	copied := filepath.Join(scratch, "wal")
	if err := os.CopyFS(copied, os.DirFS(walDir)); err != nil {
		return Contents{}, err
	}
	lg := zap.NewNop()
	repaired := false
	records, err := wal.ValidSnapshotEntries(lg, copied)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		repaired = wal.Repair(lg, copied)
		records, err = wal.ValidSnapshotEntries(lg, copied)
	}
	if err != nil {
		return Contents{Error: err.Error()}, nil
	}
	c := Contents{Repaired: repaired, Snapshots: []Snapshot{}}
	start := &walpb.Snapshot{}
	for _, r := range records {
		c.Snapshots = append(c.Snapshots, snapshotOf(r))
		if r.GetIndex() >= start.GetIndex() {
			start = r
		}
	}
	c.Start = snapshotOf(start)
	if err := c.readLog(lg, copied, start); err != nil {
		return Contents{Error: err.Error()}, nil
	}
	if snapDir != "" {
		file, err := snap.New(lg, snapDir).LoadNewestAvailable(records)
		switch {
		case err == nil:
			c.SnapFile = &SnapFile{
				Index: file.Metadata.GetIndex(), Term: file.Metadata.GetTerm(),
				Voters: file.Metadata.GetConfState().GetVoters(), Data: hex.EncodeToString(file.Data),
			}
		case !errors.Is(err, snap.ErrNoSnapshot):
			return Contents{}, err
		}
	}
	return c, nil
}

func snapshotOf(r *walpb.Snapshot) Snapshot {
	voters := r.GetConfState().GetVoters()
	if voters == nil {
		voters = []uint64{}
	}
	return Snapshot{Index: r.GetIndex(), Term: r.GetTerm(), Voters: voters}
}

// readLog opens the log for writing, as a server does: that is when etcd
// notices a torn tail. One repair is tried.
func (c *Contents) readLog(lg *zap.Logger, dir string, start *walpb.Snapshot) error {
	for {
		w, err := wal.Open(lg, dir, start)
		if err != nil {
			return err
		}
		metadata, state, entries, err := w.ReadAll()
		if closeErr := w.Close(); err == nil && closeErr != nil {
			return closeErr
		}
		if errors.Is(err, io.ErrUnexpectedEOF) && !c.Repaired {
			if c.Repaired = wal.Repair(lg, dir); c.Repaired {
				continue
			}
		}
		if err != nil {
			return err
		}
		c.Metadata = hex.EncodeToString(metadata)
		c.HardState = HardState{Term: state.GetTerm(), Vote: state.GetVote(), Commit: state.GetCommit()}
		c.Entries = []Entry{}
		for _, e := range entries {
			c.Entries = append(c.Entries, entryOf(e))
		}
		return nil
	}
}

func entryOf(e *raftpb.Entry) Entry {
	return Entry{Term: e.GetTerm(), Index: e.GetIndex(), Type: int32(e.GetType()), Data: hex.EncodeToString(e.Data)}
}

// rawEntry is entryOf backwards.
func rawEntry(term, index uint64, kind raftpb.EntryType, data []byte) *raftpb.Entry {
	return &raftpb.Entry{Term: proto.Uint64(term), Index: proto.Uint64(index), Type: kind.Enum(), Data: data}
}
