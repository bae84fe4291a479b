package crash

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"milepost.dev/test/compat/harness"
)

// TestCrowd: clients on connections of their own count up a few shared
// counters by compare-and-put. Each success counts once, a reader never sees a
// counter go back, and the number of successes is the sum in the end.
func TestCrowd(t *testing.T) {
	const clients, counters, each = 16, 3, 60
	server := harness.Start(t, harness.Subject(t), harness.Options{})
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var done sync.WaitGroup
	var successes, conflicts atomic.Int64
	faults := make(chan error, clients)
	for c := range clients {
		kv := pb.NewKVClient(server.Conn(t))
		done.Add(1)
		go func() {
			defer done.Done()
			seen := map[string]int{}
			for n := 0; n < each; {
				key := fmt.Sprintf("counter/%d", (c+n)%counters)
				got, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte(key)})
				if err != nil {
					faults <- err
					return
				}
				value, mod := 0, int64(0)
				if len(got.Kvs) > 0 {
					if value, err = strconv.Atoi(string(got.Kvs[0].Value)); err != nil {
						faults <- err
						return
					}
					mod = got.Kvs[0].ModRevision
					if got.Kvs[0].Version != int64(value) {
						faults <- fmt.Errorf("%s is %d at version %d", key, value, got.Kvs[0].Version)
						return
					}
				}
				if value < seen[key] {
					faults <- fmt.Errorf("%s went back from %d to %d", key, seen[key], value)
					return
				}
				seen[key] = value
				resp, err := kv.Txn(ctx, &pb.TxnRequest{
					Compare: []*pb.Compare{{
						Key: []byte(key), Target: pb.Compare_MOD, TargetUnion: &pb.Compare_ModRevision{ModRevision: mod},
					}},
					Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{
						RequestPut: &pb.PutRequest{Key: []byte(key), Value: strconv.AppendInt(nil, int64(value)+1, 10)},
					}}},
				})
				if err != nil {
					faults <- err
					return
				}
				if !resp.Succeeded {
					conflicts.Add(1)
					continue
				}
				successes.Add(1)
				n++
			}
		}()
	}
	done.Wait()
	close(faults)
	for err := range faults {
		t.Error(err)
	}
	all, err := pb.NewKVClient(server.Conn(t)).Range(ctx, &pb.RangeRequest{Key: []byte("counter/"), RangeEnd: []byte("counter0")})
	if err != nil {
		t.Fatal(err)
	}
	sum := int64(0)
	for _, kv := range all.Kvs {
		n, err := strconv.ParseInt(string(kv.Value), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	t.Logf("%d successes, %d conflicts, revision %d", successes.Load(), conflicts.Load(), all.Header.Revision)
	if sum != successes.Load() || all.Header.Revision != sum+1 {
		t.Errorf("%d successes, but the counters sum up to %d at revision %d", successes.Load(), sum, all.Header.Revision)
	}
	if conflicts.Load() == 0 {
		t.Error("no two clients ever met: this shows nothing")
	}
}
