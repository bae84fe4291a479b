package programs

import (
	"context"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// registration is a service that keeps its key alive, as the documents' first
// program does: grant, keep alive, put under the lease.
type registration struct {
	client  *clientv3.Client
	lease   clientv3.Lease
	id      clientv3.LeaseID
	renewed <-chan *clientv3.LeaseKeepAliveResponse
	stop    context.CancelFunc
}

func register(t *testing.T, client *clientv3.Client, key, value string, ttl int64) *registration {
	t.Helper()
	ctx := bounded(t)
	r := &registration{client: client, lease: clientv3.NewLease(client)}
	r.id = must[*clientv3.LeaseGrantResponse](t)(r.lease.Grant(ctx, ttl)).ID
	keep, stop := context.WithCancel(context.Background())
	t.Cleanup(stop)
	r.stop = stop
	r.renewed = must[<-chan *clientv3.LeaseKeepAliveResponse](t)(r.lease.KeepAlive(keep, r.id))
	must[*clientv3.PutResponse](t)(clientv3.NewKV(client).Put(ctx, key, value, clientv3.WithLease(r.id)))
	return r
}

// TestProgramsRegister is B1: a service registers, is renewed, stops renewing
// and takes itself off the register.
func TestProgramsRegister(t *testing.T) {
	server := start(t)
	client := dial(t, server)
	ctx := bounded(t)
	service := register(t, client, "/node/111", "heiheihei", 5)
	for range 2 {
		select {
		case answer, open := <-service.renewed:
			if !open || answer.ID != service.id || answer.TTL != 5 {
				t.Fatalf("renewal: open=%v %+v, wanted id %x and ttl 5", open, answer, service.id)
			}
		case <-ctx.Done():
			t.Fatal("no renewal")
		}
	}
	got := must[*clientv3.GetResponse](t)(client.Get(ctx, "/node/111"))
	if len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "heiheihei" || got.Kvs[0].Lease != int64(service.id) {
		t.Fatalf("registered: %v", got.Kvs)
	}
	service.stop()
	for open := true; open; { // the documents print "renewal closed" here
		select {
		case _, open = <-service.renewed:
		case <-ctx.Done():
			t.Fatal("the renewal channel stays open")
		}
	}
	must[*clientv3.LeaseRevokeResponse](t)(service.lease.Revoke(ctx, service.id))
	if got := must[*clientv3.GetResponse](t)(client.Get(ctx, "/node/111")); got.Count != 0 {
		t.Fatalf("still registered after the lease was revoked: %v", got.Kvs)
	}
}

// TestProgramsDiscover is B2 with B1: a map of services follows registrations,
// a revoked one and one whose process died without a word.
func TestProgramsDiscover(t *testing.T) {
	server := start(t)
	ctx := bounded(t)
	watcher := dial(t, server)
	first := register(t, dial(t, server), "/node/111", "a", 3)
	services := map[string]string{}
	got := must[*clientv3.GetResponse](t)(watcher.Get(ctx, "/node", clientv3.WithPrefix()))
	for _, kv := range got.Kvs {
		services[string(kv.Key)] = string(kv.Value)
	}
	if len(services) != 1 || services["/node/111"] != "a" {
		t.Fatalf("found at first: %v", services)
	}
	changes := watcher.Watch(ctx, "/node", clientv3.WithPrefix(), clientv3.WithRev(got.Header.Revision+1))
	follow := func(want int) {
		t.Helper()
		for len(services) != want {
			answer, open := <-changes
			if !open || answer.Err() != nil {
				t.Fatalf("the watch ended with %d services known: %v", len(services), answer.Err())
			}
			for _, event := range answer.Events {
				switch event.Type {
				case clientv3.EventTypePut:
					services[string(event.Kv.Key)] = string(event.Kv.Value)
				case clientv3.EventTypeDelete:
					delete(services, string(event.Kv.Key))
				}
			}
		}
	}
	dying := dial(t, server)
	register(t, dying, "/node/222", "b", 3)
	follow(2)
	must[*clientv3.LeaseRevokeResponse](t)(first.lease.Revoke(ctx, first.id))
	follow(1)
	before := time.Now()
	dying.Close() // no revoke: only the lease tells
	follow(0)
	if late := time.Since(before); late > 13*time.Second {
		t.Errorf("a dead service with a lease of 3s was dropped only after %s", late)
	}
}
