package programs

import (
	"context"
	"fmt"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestProgramsPutGet is B3: put and get, each with a second's time.
func TestProgramsPutGet(t *testing.T) {
	client := dial(t, start(t))
	var out transcript
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	must[*clientv3.PutResponse](t)(client.Put(ctx, "q1mi", "dsb"))
	cancel()
	ctx, cancel = context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, kv := range must[*clientv3.GetResponse](t)(client.Get(ctx, "q1mi")).Kvs {
		out.printf("%s:%s", kv.Key, kv.Value)
	}
	out.expect(t, "q1mi:dsb")
}

// TestProgramsWatch is B4: what the watcher prints while another client puts,
// deletes and puts again.
func TestProgramsWatch(t *testing.T) {
	server := start(t)
	watcher, writer := dial(t, server), dial(t, server)
	ctx := bounded(t)
	ready := watcher.Watch(ctx, "q1mi", clientv3.WithCreatedNotify())
	<-ready
	must[*clientv3.PutResponse](t)(writer.Put(ctx, "q1mi", "dsb2"))
	must[*clientv3.DeleteResponse](t)(writer.Delete(ctx, "q1mi"))
	must[*clientv3.PutResponse](t)(writer.Put(ctx, "q1mi", "dsb3"))
	var out transcript
	for seen := 0; seen < 3; {
		answer, open := <-ready
		if !open || answer.Err() != nil {
			t.Fatalf("the watch ended after %d events: %v", seen, answer.Err())
		}
		for _, ev := range answer.Events {
			out.printf("Type: %s Key:%s Value:%s", ev.Type, ev.Kv.Key, ev.Kv.Value)
			seen++
		}
	}
	out.expect(t,
		"Type: PUT Key:q1mi Value:dsb2",
		"Type: DELETE Key:q1mi Value:",
		"Type: PUT Key:q1mi Value:dsb3")
}

// TestProgramsLeaseExpiry is B5: a key under a lease of five seconds that
// nobody renews is there, and then it is gone.
func TestProgramsLeaseExpiry(t *testing.T) {
	client := dial(t, start(t))
	ctx := bounded(t)
	granted := time.Now()
	lease := must[*clientv3.LeaseGrantResponse](t)(client.Grant(ctx, 5))
	must[*clientv3.PutResponse](t)(client.Put(ctx, "/nazha/", "dsb", clientv3.WithLease(lease.ID)))
	gone := client.Watch(ctx, "/nazha/", clientv3.WithFilterPut())
	if got := must[*clientv3.GetResponse](t)(client.Get(ctx, "/nazha/")); got.Count != 1 {
		t.Fatalf("not there at first: %v", got.Kvs)
	}
	answer := <-gone
	lived := time.Since(granted)
	if len(answer.Events) != 1 || answer.Events[0].Type != clientv3.EventTypeDelete {
		t.Fatalf("instead of the deletion: %v, %v", answer.Events, answer.Err())
	}
	// etcd looks for expired leases twice a second; the rest is a busy machine.
	if lived < 5*time.Second || lived > 15*time.Second {
		t.Errorf("a lease of 5s lived %s", lived)
	}
	if got := must[*clientv3.GetResponse](t)(client.Get(ctx, "/nazha/")); got.Count != 0 {
		t.Errorf("still there after the deletion was told: %v", got.Kvs)
	}
	ttl := must[*clientv3.LeaseTimeToLiveResponse](t)(client.TimeToLive(ctx, lease.ID))
	if ttl.TTL != -1 {
		t.Errorf("time to live of an expired lease: %d, wanted -1", ttl.TTL)
	}
}

// TestProgramsKeepAlive is B6: a renewed key outlives its lease's time.
func TestProgramsKeepAlive(t *testing.T) {
	client := dial(t, start(t))
	ctx := bounded(t)
	lease := must[*clientv3.LeaseGrantResponse](t)(client.Grant(ctx, 5))
	must[*clientv3.PutResponse](t)(client.Put(ctx, "/nazha/", "dsb", clientv3.WithLease(lease.ID)))
	renewals := must[<-chan *clientv3.LeaseKeepAliveResponse](t)(client.KeepAlive(ctx, lease.ID))
	started := time.Now()
	for time.Since(started) < 6*time.Second {
		answer, open := <-renewals
		if !open {
			t.Fatal("the renewals ended")
		}
		if line := fmt.Sprintf("ttl: %d", answer.TTL); line != "ttl: 5" {
			t.Fatalf("printed %q, wanted %q", line, "ttl: 5")
		}
	}
	if got := must[*clientv3.GetResponse](t)(client.Get(ctx, "/nazha/")); got.Count != 1 {
		t.Error("the renewed key is gone")
	}
}
