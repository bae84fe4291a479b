package differential

import (
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"milepost.dev/test/compat/differ"
)

// TestHashRevisions asks for the hash at every revision of a short history,
// and outside of it, before and after each of a row of compactions: at puts,
// at tombstones, at keys that were deleted and put again.
func TestHashRevisions(t *testing.T) {
	pair := startPair(t)
	g := newGenerator(pair, 5)
	change := func(i int) {
		key := []byte(fmt.Sprintf("k%d", i%5))
		if i%4 == 3 {
			a := pair.Invoke("delete", method("KV", "DeleteRange"), &pb.DeleteRangeRequest{Key: key}, into[pb.DeleteRangeResponse]())
			g.note(a.Messages[0].(*pb.DeleteRangeResponse).Header)
			return
		}
		a := pair.Invoke("put", method("KV", "Put"), &pb.PutRequest{Key: key, Value: fmt.Append(nil, i)}, into[pb.PutResponse]())
		g.note(a.Messages[0].(*pb.PutResponse).Header)
	}
	hashes := func() {
		revisions := []int64{-1 << 63, -3, -1, 1<<63 - 1}
		for rev := int64(0); rev <= g.revision+2; rev++ {
			revisions = append(revisions, rev)
		}
		for _, rev := range revisions {
			pair.Invoke("hash kv", method("Maintenance", "HashKV"), &pb.HashKVRequest{Revision: rev}, into[pb.HashKVResponse]())
		}
	}
	for i := range 60 {
		change(i)
	}
	hashes()
	for _, rev := range []int64{3, 4, 5, 9, 20, 21, 22, 33, 34, 50, 51, 52, 53, 54} {
		g.compact("compact", &pb.CompactionRequest{Revision: rev, Physical: rev%2 == 0})
		hashes()
		change(int(rev))
	}
	// Two in a row without a breath: what the second one stores depends on
	// whether the first one had finished, so that both wait in the same way.
	g.compact("compact", &pb.CompactionRequest{Revision: g.revision - 1})
	g.compact("compact", &pb.CompactionRequest{Revision: g.revision, Physical: true})
	hashes()
	pair.InvokeEach("range", method("KV", "Range"), func(*differ.Side) proto.Message {
		return &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Revision: g.revision}
	}, into[pb.RangeResponse](), nil)
}
