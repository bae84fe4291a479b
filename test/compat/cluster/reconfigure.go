package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"milepost.dev/test/compat/harness"
)

// Reconfigurer changes who is a member, again and again: a learner is added,
// started and promoted, then one of the others is removed, the leader as well.
// The cluster keeps its size. Every request may fail and is looked after.
type Reconfigurer struct {
	cluster *Cluster
	bin     harness.Binary
	random  *rand.Rand
	count   func(kind string)
	log     func(format string, args ...any)

	mu      sync.Mutex
	removed []Removed
	voters  []*Member
	stop    chan struct{}
	done    chan struct{}
	err     error
}

// Removed is a member that was removed, and the voters that were left then.
type Removed struct {
	*Member
	Left []*Member
}

// Reconfigure starts changing a cluster whose members are all voters.
func (c *Cluster) Reconfigure(bin harness.Binary, seed uint64, count func(string), log func(string, ...any)) *Reconfigurer {
	r := &Reconfigurer{
		cluster: c, bin: bin, random: rand.New(rand.NewPCG(seed, 77)), count: count, log: log,
		voters: c.Members(), stop: make(chan struct{}), done: make(chan struct{}),
	}
	go func() {
		defer close(r.done)
		for r.err == nil {
			select {
			case <-r.stop:
				return
			default:
				r.err = r.round()
			}
		}
	}()
	return r
}

// Stop ends it after the round under way, and returns those it has removed.
func (r *Reconfigurer) Stop() ([]Removed, error) {
	close(r.stop)
	<-r.done
	return r.removed, r.err
}

// Voters are those that are members now.
func (r *Reconfigurer) Voters() []*Member {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*Member(nil), r.voters...)
}

func (r *Reconfigurer) pick(random *rand.Rand) *Member {
	voters := r.Voters()
	return voters[random.IntN(len(voters))]
}

// patience is for one step over all faults that may happen meanwhile.
const patience = time.Minute

func (r *Reconfigurer) round() error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	defer cancel()
	m, err := r.cluster.Prepare(r.bin)
	if err != nil {
		return err
	}
	client, err := newClient(endpoints(r.Voters()))
	if err != nil {
		return err
	}
	defer client.Close()
	if err := r.until(ctx, client, "add a learner", func(ctx context.Context) error {
		_, err := client.MemberAddAsLearner(ctx, []string{m.PeerURL})
		return err
	}, func(list []*pb.Member) bool { return find(list, m) != nil }); err != nil {
		return err
	}
	r.count("member: learner added")
	if err := r.startJoining(ctx, m); err != nil {
		return err
	}
	id := uint64(0)
	if err := r.until(ctx, client, "promote "+m.Name, func(ctx context.Context) error {
		if err := r.startJoining(ctx, m); err != nil {
			return err
		}
		if id == 0 {
			list, err := client.MemberList(ctx)
			if err != nil {
				return err
			}
			if known := find(list.Members, m); known != nil {
				id = known.ID
			}
		}
		_, err := client.MemberPromote(ctx, id)
		return err
	}, func(list []*pb.Member) bool { known := find(list, m); return known != nil && !known.IsLearner }); err != nil {
		return fmt.Errorf("%w; last lines of its log:\n%s", err, m.LogTail(8))
	}
	r.count("member: promoted")
	r.mu.Lock()
	victim := r.voters[r.random.IntN(len(r.voters))]
	r.voters = append(r.voters, m)
	r.mu.Unlock()
	return r.remove(ctx, client, victim)
}

// startJoining starts a member that does not run. One that joins ends when it
// cannot reach the others, and is started again.
func (r *Reconfigurer) startJoining(ctx context.Context, m *Member) error {
	if m.Running() {
		return nil
	}
	if m.Starts() > 0 {
		r.count("member: joining started again")
	}
	r.cluster.Join(m, r.Voters()...)
	return m.Start()
}

func (r *Reconfigurer) remove(ctx context.Context, client *clientv3.Client, victim *Member) error {
	if leader, err := r.cluster.Leader(ctx); err == nil && leader == victim {
		r.count("member: leader removed")
	}
	id := uint64(0)
	if err := r.until(ctx, client, "remove "+victim.Name, func(ctx context.Context) error {
		list, err := client.MemberList(ctx)
		if err != nil {
			return err
		}
		known := find(list.Members, victim)
		if known == nil {
			return nil
		}
		id = known.ID
		_, err = client.MemberRemove(ctx, id)
		return err
	}, func(list []*pb.Member) bool { return find(list, victim) == nil }); err != nil {
		return err
	}
	r.count("member: removed")
	r.mu.Lock()
	defer r.mu.Unlock()
	r.voters = slices.DeleteFunc(slices.Clone(r.voters), func(m *Member) bool { return m == victim })
	r.removed = append(r.removed, Removed{victim, r.voters})
	return nil
}

// until repeats a change until the member list shows it: an error does not
// say that nothing happened.
func (r *Reconfigurer) until(ctx context.Context, client *clientv3.Client, what string, change func(context.Context) error, done func([]*pb.Member) bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		short, cancel := context.WithTimeout(ctx, 3*time.Second)
		err := change(short)
		cancel()
		if err == nil {
			return nil
		}
		r.count("member: change refused or unknown")
		short, cancel = context.WithTimeout(ctx, 3*time.Second)
		list, listErr := client.MemberList(short)
		cancel()
		if listErr == nil && done(list.Members) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, errors.Join(err, listErr))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func find(list []*pb.Member, m *Member) *pb.Member {
	for _, known := range list {
		if strings.Join(known.PeerURLs, ",") == m.PeerURL {
			return known
		}
	}
	return nil
}
