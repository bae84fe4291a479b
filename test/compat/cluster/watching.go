package cluster

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
)

// Watching is a client that follows all changes below Prefix, over whatever
// happens to the members, and goes on after the last revision it has seen when
// its watch ends.
type Watching struct {
	Name string

	client *clientv3.Client
	all    bool         // it may ask any member
	opened atomic.Int64 // streams of watches
	cancel context.CancelFunc
	done   chan struct{}
	mu     sync.Mutex
	seen   []Change
	anew   int // watches that the client gave up
	last   error
}

// Follow starts one. With needsLeader its stream ends when the member has none.
func Follow(name string, needsLeader bool, members ...*Member) (*Watching, error) {
	ctx, cancel := context.WithCancel(context.Background())
	if needsLeader {
		ctx = clientv3.WithRequireLeader(ctx)
	}
	w := &Watching{Name: name, all: len(members) > 1, cancel: cancel, done: make(chan struct{})}
	var err error
	if w.client, err = newClient(endpoints(members), grpc.WithChainStreamInterceptor(w.count)); err != nil {
		cancel()
		return nil, err
	}
	go func() {
		defer close(w.done)
		for next := int64(1); ctx.Err() == nil; {
			next = w.once(ctx, next)
			_ = pause(ctx) // a member without a leader refuses at once; an ended ctx ends the loop
		}
	}()
	return w, nil
}

// count sees each stream that the client opens: it goes on by itself after the
// last event when one breaks.
func (w *Watching) count(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string,
	open grpc.Streamer, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	stream, err := open(ctx, desc, cc, method, opts...)
	if err == nil && method == "/etcdserverpb.Watch/Watch" {
		w.opened.Add(1)
	}
	return stream, err
}

func (w *Watching) once(ctx context.Context, from int64) int64 {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for resp := range w.client.Watch(ctx, Prefix, clientv3.WithPrefix(), clientv3.WithRev(from)) {
		w.mu.Lock()
		for _, e := range resp.Events {
			w.seen = append(w.seen, changeOf(e))
			from = e.Kv.ModRevision + 1
		}
		if err := resp.Err(); err != nil {
			w.last = err
		}
		w.mu.Unlock()
	}
	if ctx.Err() == nil {
		w.mu.Lock()
		w.anew++
		w.mu.Unlock()
	}
	return from
}

// Await returns once it has seen a revision, and compares what it saw with the
// story: no gap, nothing twice, nothing else.
func (w *Watching) Await(ctx context.Context, story []Change) error {
	until := story[len(story)-1].Revision
	for {
		w.mu.Lock()
		n := len(w.seen)
		reached := n > 0 && w.seen[n-1].Revision >= until
		w.mu.Unlock()
		if reached {
			break
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("%s has seen %d of %d changes; last error: %w", w.Name, n, len(story), w.last)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, c := range w.seen {
		if i >= len(story) || c != story[i] {
			var want any = "the end"
			if i < len(story) {
				want = story[i]
			}
			return fmt.Errorf("%s: its change %d is %+v, the story has %+v (its watch was made anew %d times)", w.Name, i, c, want, w.anew)
		}
	}
	if len(w.seen) != len(story) {
		return fmt.Errorf("%s has seen %d of %d changes", w.Name, len(w.seen), len(story))
	}
	return nil
}

// Resumes is how often its stream ended and another went on.
func (w *Watching) Resumes() int { return int(w.opened.Load()) - 1 }

// Follow tells it which members are left.
func (w *Watching) Follow(members []*Member) {
	if w.all {
		w.client.SetEndpoints(endpoints(members)...)
	}
}

// Close ends it.
func (w *Watching) Close() {
	w.cancel()
	w.client.Close()
	<-w.done
}
