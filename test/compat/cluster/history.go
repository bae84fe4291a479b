package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/status"
)

// Kind is what a client asked for.
type Kind string

const (
	Put    Kind = "put"    // each of Keys gets Value, in one revision
	Swap   Kind = "swap"   // Keys[0] gets Value if it is Expect ("" = absent)
	Delete Kind = "delete" // Keys[0]
	Read   Kind = "read"   // Keys[0], linearizable
	Local  Kind = "local"  // Keys[0], serializable
)

// Op is one question of a client and its outcome. Every Value is unique.
type Op struct {
	Client, Member int // Member is -1 when the client knows all of them
	Starts         int // how often Member had been started: a restart makes another one of it
	Kind           Kind
	Keys           []string
	Value, Expect  string
	// Call and Return are in nanoseconds since the history began.
	Call, Return int64
	// Known is false when the outcome is unknown; then the rest is empty. Reads
	// of unknown outcome are not kept.
	Known    bool
	Revision int64  // the answer's
	Done     bool   // a swap that took place, a delete that found its key
	Found    string // what a read, or a swap that did not take place, saw; "" = absent
	Mod      int64  // its revision
}

// effective tells whether a known operation made a revision.
func (o *Op) effective() bool {
	return o.Known && (o.Kind == Put || ((o.Kind == Swap || o.Kind == Delete) && o.Done))
}

// write tells whether it may make a revision.
func (o *Op) write() bool { return o.Kind == Put || o.Kind == Swap || o.Kind == Delete }

// event is what a tally calls it.
func (o *Op) event() string {
	switch {
	case !o.Known:
		return "client: write of unknown outcome"
	case o.Kind == Swap && !o.Done:
		return "client: swap refused"
	case o.Kind == Delete && !o.Done:
		return "client: nothing to delete"
	default:
		return "client: " + string(o.Kind)
	}
}

// Prefix is what all keys of a history begin with.
const Prefix = "h/"

// Recorder lets clients ask and keeps what they saw.
type Recorder struct {
	cluster *Cluster
	began   time.Time
	pick    func(*rand.Rand) *Member

	mu     sync.Mutex
	ops    []*Op
	errors map[string]int
	count  int // of operations begun

	stop    chan struct{}
	workers sync.WaitGroup
}

// Record starts clients. pick names a member for a client that asks one
// member alone; every third client knows all of them.
func (c *Cluster) Record(clients int, seed uint64, pick func(*rand.Rand) *Member) *Recorder {
	r := &Recorder{cluster: c, began: time.Now(), pick: pick, errors: map[string]int{}, stop: make(chan struct{})}
	for n := range clients {
		r.workers.Add(1)
		go func() {
			defer r.workers.Done()
			r.work(n, rand.New(rand.NewPCG(seed, uint64(n))))
		}()
	}
	return r
}

// Stop ends the clients and returns what they saw, and their errors by text.
func (r *Recorder) Stop() ([]*Op, map[string]int) {
	close(r.stop)
	r.workers.Wait()
	return r.ops, r.errors
}

// Acknowledged is how many writes were so far.
func (r *Recorder) Acknowledged() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, op := range r.ops {
		if op.effective() {
			n++
		}
	}
	return n
}

// Events is how often each kind of event happened so far.
func (r *Recorder) Events() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]int{}
	for _, op := range r.ops {
		out[op.event()]++
	}
	return out
}

// A key is used for about this many operations, then its successor is: searches
// for an order grow fast with the number of operations on one key.
const opsPerGeneration, keysPerGeneration = 300, 4

// refusalsInARow is after how many errors a client of one member takes another.
const refusalsInARow = 3

func (r *Recorder) work(id int, random *rand.Rand) {
	var client *clientv3.Client
	var at *Member
	failed := 0
	defer func() {
		if client != nil {
			client.Close()
		}
	}()
	for {
		select {
		case <-r.stop:
			return
		case <-time.After(time.Duration(random.IntN(12)) * time.Millisecond):
		}
		if client == nil || (at != nil && failed >= refusalsInARow) {
			if client != nil {
				client.Close()
				client = nil
			}
			var err error
			if id%3 == 2 {
				client, err = r.cluster.Client()
			} else if at = r.pick(random); at != nil {
				client, err = at.Client()
			}
			if err != nil || client == nil {
				continue
			}
			failed = 0
		}
		// Most give up early, so that many outcomes are unknown; some wait longer
		// than the server does, and see how it gives up.
		patience := 1500 * time.Millisecond
		if id%5 == 4 {
			patience = 12 * time.Second
		}
		if r.ask(client, at, id, random, patience) {
			failed = 0
		} else {
			failed++
		}
	}
}

// next makes an operation.
func (r *Recorder) next(id int, at *Member, random *rand.Rand) *Op {
	r.mu.Lock()
	r.count++
	generation := r.count / opsPerGeneration
	value := fmt.Sprintf("v%d.%d", id, r.count)
	r.mu.Unlock()
	key := func() string { return fmt.Sprintf("%s%d/%d", Prefix, generation, random.IntN(keysPerGeneration)) }
	op := &Op{Client: id, Member: -1, Keys: []string{key()}}
	if at != nil {
		op.Member, op.Starts = at.Number, at.Starts()
	}
	switch n := random.IntN(100); {
	case n < 25:
		op.Kind, op.Value = Put, value
		if other := key(); other != op.Keys[0] && n < 10 {
			op.Keys = append(op.Keys, other)
		}
	case n < 45:
		op.Kind, op.Value = Swap, value
	case n < 55:
		op.Kind = Delete
	case n < 85:
		op.Kind = Read
	default:
		op.Kind = Local
	}
	return op
}

func (r *Recorder) ask(client *clientv3.Client, at *Member, id int, random *rand.Rand, patience time.Duration) bool {
	op := r.next(id, at, random)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if op.Kind == Swap { // what to expect: what is there, by a look that is not recorded
		seen, err := client.Get(ctx, op.Keys[0], clientv3.WithSerializable())
		if err != nil {
			r.note(err)
			return false
		}
		if len(seen.Kvs) > 0 {
			op.Expect = string(seen.Kvs[0].Value)
		}
	}
	op.Call = time.Since(r.began).Nanoseconds()
	err := op.do(ctx, client)
	op.Return = time.Since(r.began).Nanoseconds()
	if err != nil {
		r.note(err)
		if !op.write() {
			return false
		}
	} else {
		op.Known = true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ops = append(r.ops, op)
	return err == nil
}

func (r *Recorder) note(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	text := err.Error()
	if s, ok := status.FromError(err); ok {
		text = s.Message()
	}
	if len(text) > 100 {
		text = text[:100]
	}
	r.errors[text]++
}

func (o *Op) do(ctx context.Context, client *clientv3.Client) error {
	key := o.Keys[0]
	switch o.Kind {
	case Put:
		var puts []clientv3.Op
		for _, k := range o.Keys {
			puts = append(puts, clientv3.OpPut(k, o.Value))
		}
		if len(puts) == 1 {
			resp, err := client.Put(ctx, key, o.Value)
			if err == nil {
				o.Revision = resp.Header.Revision
			}
			return err
		}
		resp, err := client.Txn(ctx).Then(puts...).Commit()
		if err == nil {
			o.Revision = resp.Header.Revision
		}
		return err
	case Swap:
		is := clientv3.Compare(clientv3.Value(key), "=", o.Expect)
		if o.Expect == "" {
			is = clientv3.Compare(clientv3.CreateRevision(key), "=", 0)
		}
		resp, err := client.Txn(ctx).If(is).Then(clientv3.OpPut(key, o.Value)).Else(clientv3.OpGet(key)).Commit()
		if err != nil {
			return err
		}
		o.Revision, o.Done = resp.Header.Revision, resp.Succeeded
		if !o.Done {
			o.saw(resp.Responses[0].GetResponseRange().Kvs)
		}
		return nil
	case Delete:
		resp, err := client.Delete(ctx, key)
		if err == nil {
			o.Revision, o.Done = resp.Header.Revision, resp.Deleted > 0
		}
		return err
	default:
		var opts []clientv3.OpOption
		if o.Kind == Local {
			opts = append(opts, clientv3.WithSerializable())
		}
		resp, err := client.Get(ctx, key, opts...)
		if err == nil {
			o.Revision = resp.Header.Revision
			o.saw(resp.Kvs)
		}
		return err
	}
}

func (o *Op) saw(kvs []*mvccpb.KeyValue) {
	if len(kvs) > 0 {
		o.Found, o.Mod = string(kvs[0].Value), kvs[0].ModRevision
	}
}
