package cluster

import (
	"context"
	"fmt"
	"math"
	"sort"
	"time"

	"github.com/anishathalye/porcupine"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Change is one event of the store's history.
type Change struct {
	Revision int64
	Key      string
	Value    string // "" = deleted
}

func changeOf(e *clientv3.Event) Change {
	c := Change{Revision: e.Kv.ModRevision, Key: string(e.Kv.Key)}
	if e.Type == mvccpb.PUT {
		c.Value = string(e.Kv.Value)
	}
	return c
}

// Story reads all changes below Prefix from one member, up to a revision at
// which there was one.
func Story(ctx context.Context, m *Member, until int64) ([]Change, error) {
	client, err := m.Client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var story []Change
	for resp := range client.Watch(ctx, Prefix, clientv3.WithPrefix(), clientv3.WithRev(1)) {
		if err := resp.Err(); err != nil {
			return nil, err
		}
		for _, e := range resp.Events {
			if e.Kv.ModRevision <= until {
				story = append(story, changeOf(e))
			}
		}
		if n := len(story); n > 0 && story[n-1].Revision == until {
			return story, nil
		}
	}
	return nil, fmt.Errorf("%s: its history ends before revision %d: %w", m, until, ctx.Err())
}

// CheckStory holds what clients saw against the store's history, with the
// revision of each answer as the moment it speaks of:
//
//   - a change is in the story exactly where it was acknowledged, whole, and
//     nothing is there that nobody asked for, or twice;
//   - an operation that began after another had returned has no lower revision,
//     and a write a higher one (a serializable read is free of this);
//   - a read saw what the story has at its revision; so did a swap and a delete
//     about what they found;
//   - one process never goes back, not even for serializable reads of a client.
//
// It returns at most a few faults.
func CheckStory(story []Change, ops []*Op) []error {
	k := &storyCheck{story: story, ops: ops, byRevision: map[int64][]Change{}, byKey: map[string][]Change{}}
	for i, c := range story {
		k.byRevision[c.Revision] = append(k.byRevision[c.Revision], c)
		k.byKey[c.Key] = append(k.byKey[c.Key], c)
		if i > 0 && c.Revision < story[i-1].Revision {
			k.fault("the story goes from revision %d to %d", story[i-1].Revision, c.Revision)
		}
		if i > 0 && c.Revision > story[i-1].Revision+1 {
			k.fault("the story has a gap between %d and %d", story[i-1].Revision, c.Revision)
		}
	}
	k.changesHaveAuthors()
	k.realTime()
	k.readsAreRight()
	k.localReadsGoForward()
	return k.faults
}

type storyCheck struct {
	story      []Change
	ops        []*Op
	byRevision map[int64][]Change
	byKey      map[string][]Change
	faults     []error
	// landed is where a write of unknown outcome turned out to be.
	landed map[*Op]int64
}

func (k *storyCheck) fault(format string, args ...any) {
	if len(k.faults) < 10 {
		k.faults = append(k.faults, fmt.Errorf(format, args...))
	}
}

// at is the last change of a key up to a revision.
func (k *storyCheck) at(key string, revision int64) Change {
	changes := k.byKey[key]
	i := sort.Search(len(changes), func(i int) bool { return changes[i].Revision > revision })
	if i == 0 {
		return Change{}
	}
	return changes[i-1]
}

func (k *storyCheck) changesHaveAuthors() {
	k.landed = map[*Op]int64{}
	authors := map[string]*Op{}           // of values
	deletes := map[string]map[int64]*Op{} // known ones by key and revision
	open := map[string][]*Op{}            // deletes of unknown outcome
	for _, op := range k.ops {
		switch {
		case op.Kind == Put || op.Kind == Swap:
			authors[op.Value] = op
		case op.effective():
			if deletes[op.Keys[0]] == nil {
				deletes[op.Keys[0]] = map[int64]*Op{}
			}
			deletes[op.Keys[0]][op.Revision] = op
		case op.Kind == Delete && !op.Known:
			open[op.Keys[0]] = append(open[op.Keys[0]], op)
		}
		if !op.effective() {
			continue
		}
		for _, key := range op.Keys {
			found := false
			for _, c := range k.byRevision[op.Revision] {
				found = found || (c.Key == key && c.Value == op.Value)
			}
			if !found || len(k.byRevision[op.Revision]) != len(op.Keys) {
				k.fault("LOST: acknowledged %s, but revision %d is %v", op, op.Revision, k.byRevision[op.Revision])
			}
		}
	}
	for revision, changes := range k.byRevision {
		for _, c := range changes {
			if c.Value == "" {
				if deletes[c.Key][revision] != nil {
					continue
				}
				if len(open[c.Key]) == 0 {
					k.fault("nobody deleted %s at revision %d", c.Key, revision)
					continue
				}
				open[c.Key] = open[c.Key][1:]
				continue
			}
			op := authors[c.Value]
			if op == nil {
				k.fault("nobody wrote %+v", c)
				continue
			}
			if op.Known && (!op.effective() || op.Revision != revision) {
				k.fault("%+v is there, but its writer was told: %s", c, op)
			}
			if !op.Known {
				if before, twice := k.landed[op]; twice && before != revision {
					k.fault("TWICE: %s is there at revisions %d and %d", op, before, revision)
				}
				k.landed[op] = revision
			}
		}
	}
	for op, revision := range k.landed {
		if len(k.byRevision[revision]) != len(op.Keys) {
			k.fault("half of %s is there: %v", op, k.byRevision[revision])
		}
	}
}

// realTime walks through calls and returns in order of time.
func (k *storyCheck) realTime() {
	type moment struct {
		at   int64
		call bool
		op   *Op
	}
	var moments []moment
	for _, op := range k.ops {
		if op.Kind == Local {
			continue
		}
		if _, landed := k.landed[op]; op.Known || landed {
			moments = append(moments, moment{op.Call, true, op})
		}
		if op.Known {
			moments = append(moments, moment{op.Return, false, op})
		}
	}
	sort.SliceStable(moments, func(i, j int) bool {
		if moments[i].at != moments[j].at {
			return moments[i].at < moments[j].at
		}
		return moments[i].call && !moments[j].call
	})
	var seen int64
	var by *Op
	for _, m := range moments {
		if !m.call {
			if m.op.Revision > seen {
				seen, by = m.op.Revision, m.op
			}
			continue
		}
		revision, writes := m.op.Revision, m.op.effective()
		if !m.op.Known {
			revision, writes = k.landed[m.op], true
		}
		if revision < seen || (writes && revision == seen) {
			k.fault("STALE: %s has revision %d, and began %s after this had returned: %s",
				m.op, revision, time.Duration(m.op.Call-by.Return), by)
		}
	}
}

func (k *storyCheck) readsAreRight() {
	for _, op := range k.ops {
		if !op.Known {
			continue
		}
		key := op.Keys[0]
		switch {
		case op.Kind == Read || op.Kind == Local || (op.Kind == Swap && !op.Done):
			is := k.at(key, op.Revision)
			mod := is.Revision
			if is.Value == "" {
				mod = 0
			}
			if is.Value != op.Found || mod != op.Mod {
				k.fault("WRONG: %s saw %q (revision %d), the story has %q (%d)", op, op.Found, op.Mod, is.Value, mod)
			}
			if op.Kind == Swap && op.Found == op.Expect {
				k.fault("%s was refused although it found what it expected", op)
			}
		case op.Kind == Swap:
			if before := k.at(key, op.Revision-1); before.Value != op.Expect {
				k.fault("WRONG: %s took place, and before it there was %q", op, before.Value)
			}
		case op.Kind == Delete && !op.Done:
			if is := k.at(key, op.Revision); is.Value != "" {
				k.fault("WRONG: %s found nothing, the story has %q", op, is.Value)
			}
		}
	}
}

func (k *storyCheck) localReadsGoForward() {
	type process struct{ client, member, starts int }
	last := map[process]*Op{}
	for _, op := range k.ops { // a client's operations are in its order
		if !op.Known || op.Member < 0 {
			continue
		}
		p := process{op.Client, op.Member, op.Starts}
		if before := last[p]; before != nil && op.Revision < before.Revision {
			k.fault("%s: the same client had seen a later revision of the same process before: %s", op, before)
		}
		last[p] = op
	}
}

func (o *Op) String() string {
	at := "all"
	if o.Member >= 0 {
		at = fmt.Sprintf("m%d", o.Member)
	}
	return fmt.Sprintf("{client %d at %s: %s %v value=%q expect=%q known=%v done=%v revision=%d, %s to %s}",
		o.Client, at, o.Kind, o.Keys, o.Value, o.Expect, o.Known, o.Done, o.Revision, time.Duration(o.Call), time.Duration(o.Return))
}

// register is a key for the searching checker, which knows no revisions: its
// state is the value.
var register = porcupine.Model{
	Init: func() any { return "" },
	Step: func(state, input, _ any) (bool, any) {
		op, value := input.(*Op), state.(string)
		switch op.Kind {
		case Put:
			return true, op.Value
		case Swap:
			took := value == op.Expect
			if op.Known && (took != op.Done || (!took && op.Found != value)) {
				return false, value
			}
			if took {
				return true, op.Value
			}
			return true, value
		case Delete:
			if op.Known && op.Done != (value != "") {
				return false, value
			}
			return true, ""
		default:
			return op.Found == value, value
		}
	},
	DescribeOperation: func(input, _ any) string { return input.(*Op).String() },
}

// CheckOrder searches, key by key, for an order of all operations but
// serializable reads that explains each answer. It knows nothing of revisions
// and of what the store says now. It returns the number of keys.
func CheckOrder(ops []*Op, within time.Duration) (int, error) {
	byKey := map[string][]porcupine.Operation{}
	for _, op := range ops {
		if op.Kind == Local {
			continue
		}
		end := op.Return
		if !op.Known { // it may take place at any time from its call on, or never
			end = math.MaxInt64
		}
		for _, key := range op.Keys {
			byKey[key] = append(byKey[key], porcupine.Operation{ClientId: op.Client, Input: op, Call: op.Call, Return: end})
		}
	}
	deadline := time.Now().Add(within)
	for key, history := range byKey {
		switch porcupine.CheckOperationsTimeout(register, history, max(time.Second, time.Until(deadline))) {
		case porcupine.Illegal:
			return len(byKey), fmt.Errorf("no order explains the %d operations on %s", len(history), key)
		case porcupine.Unknown:
			return len(byKey), fmt.Errorf("no order found in time for the %d operations on %s", len(history), key)
		}
	}
	return len(byKey), nil
}
