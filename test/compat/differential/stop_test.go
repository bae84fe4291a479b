package differential

import (
	"fmt"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"milepost.dev/test/compat/differ"
)

// TestStop: what a client with an open watch sees when the server is told to
// stop, and how the process ends.
func TestStop(t *testing.T) {
	pair := startPair(t)
	w := pair.OpenWatch("watch", nil)
	createAnd(w, &pb.WatchCreateRequest{Key: []byte("a")})
	put(pair, "a", "1")
	w.Await("the event", func(log []*pb.WatchResponse) bool { return differ.EventsOf(log, 0) == 1 })
	streams := map[*differ.Side]*differ.WatchStream{pair.Ref: w.Ref, pair.Sub: w.Sub}
	ref, sub := differ.Both(pair, func(side *differ.Side) string {
		code, err := side.Server.Terminate()
		end := streams[side].End()
		return fmt.Sprintf("exit code %d (%v), the watch ended with %d", code, err, end.Code())
	})
	t.Log(ref)
	if ref != sub {
		pair.Finding("stop", "SIGTERM", ref, sub)
	}
	w.CompareNew(true)
}
