package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"
)

// Fault is one piece of bad luck. Begin returns what ends it.
type Fault struct {
	Name  string
	Begin func(ctx context.Context, c *Cluster, random *rand.Rand) (end func() error, err error)
}

// onLeader is a fault of whoever leads at its beginning.
func onLeader(name string, begin func(c *Cluster, leader *Member) (func() error, error)) Fault {
	return Fault{"leader " + name, func(ctx context.Context, c *Cluster, _ *rand.Rand) (func() error, error) {
		leader, err := c.Leader(ctx)
		if err != nil {
			return nil, err
		}
		return begin(c, leader)
	}}
}

// onFollower is a fault of one that does not lead.
func onFollower(name string, begin func(c *Cluster, follower *Member) (func() error, error)) Fault {
	return Fault{"follower " + name, func(ctx context.Context, c *Cluster, random *rand.Rand) (func() error, error) {
		leader, err := c.Leader(ctx)
		if err != nil {
			return nil, err
		}
		all := c.Running()
		for _, i := range random.Perm(len(all)) {
			if all[i] != leader {
				return begin(c, all[i])
			}
		}
		return nil, fmt.Errorf("nobody follows")
	}}
}

func kill(_ *Cluster, m *Member) (func() error, error) {
	m.Kill()
	return m.back, nil
}

func terminate(_ *Cluster, m *Member) (func() error, error) {
	_, err := m.Terminate(30 * time.Second)
	return m.back, err
}

func stop(_ *Cluster, m *Member) (func() error, error) {
	return func() error { return m.Signal(syscall.SIGCONT) }, m.Signal(syscall.SIGSTOP)
}

func isolate(c *Cluster, m *Member) (func() error, error) {
	c.Isolate(m)
	return healed(c), nil
}

func mute(c *Cluster, m *Member) (func() error, error) {
	c.Silence(m, false)
	return healed(c), nil
}

func deafen(c *Cluster, m *Member) (func() error, error) {
	c.Silence(m, true)
	return healed(c), nil
}

func healed(c *Cluster) func() error {
	return func() error { c.Net.Heal(); return nil }
}

// slowDisk lets each sync take so long.
func slowDisk(sync time.Duration) func(*Cluster, *Member) (func() error, error) {
	return func(_ *Cluster, m *Member) (func() error, error) {
		return m.Spoil(fmt.Sprintf("delay_enter=%d", sync.Microseconds()))
	}
}

// failingDisk lets each sync fail: the member ends, and must not before it has
// been asked to sync anything.
func failingDisk(_ *Cluster, m *Member) (func() error, error) {
	release, err := m.Spoil("error=EIO")
	if err != nil {
		return nil, err
	}
	return func() error {
		how, err := m.End(30 * time.Second)
		if err != nil {
			return fmt.Errorf("with a failing disk %w", err)
		}
		if how == "exit 0" {
			return fmt.Errorf("with a failing disk %s ended with %s", m, how)
		}
		if err := release(); err != nil {
			return err
		}
		return m.back()
	}, nil
}

// network is a fault of the network that names no member.
func network(name string, begin func(c *Cluster)) Fault {
	return Fault{name, func(_ context.Context, c *Cluster, _ *rand.Rand) (func() error, error) {
		begin(c)
		return healed(c), nil
	}}
}

// Faults is all that may happen to a cluster of three and more. Those that need
// five are apart.
func Faults() []Fault {
	return []Fault{
		onLeader("killed", kill),
		onLeader("terminated", terminate),
		onLeader("paused", stop),
		onLeader("isolated", isolate),
		onLeader("mute", mute),
		onLeader("deaf", deafen),
		onLeader("with a slow disk", slowDisk(100*time.Millisecond)),
		onLeader("with a stuck disk", slowDisk(time.Minute)),
		onLeader("with a failing disk", failingDisk),
		onFollower("killed", kill),
		onFollower("paused", stop),
		onFollower("isolated", isolate),
		onFollower("mute", mute),
		onFollower("deaf", deafen),
		onFollower("with a slow disk", slowDisk(100*time.Millisecond)),
		onFollower("with a stuck disk", slowDisk(time.Minute)),
		onFollower("with a failing disk", failingDisk),
		onLeader("cut from one follower", func(c *Cluster, leader *Member) (func() error, error) {
			for _, m := range c.Running() {
				if m != leader {
					c.Net.Cut(leader.Number, m.Number)
					break
				}
			}
			return healed(c), nil
		}),
		network("everybody isolated", func(c *Cluster) {
			for _, m := range c.Members() {
				c.Isolate(m)
			}
		}),
		network("delay", func(c *Cluster) {
			c.SetAll(Rule{Delay: 20 * time.Millisecond, Jitter: 60 * time.Millisecond})
		}),
		network("slow lines", func(c *Cluster) { c.SetAll(Rule{Rate: 40 << 10}) }),
		{"connections reset", func(_ context.Context, c *Cluster, random *rand.Rand) (func() error, error) {
			done, ended := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(ended)
				for {
					for _, a := range c.Members() {
						for _, b := range c.Members() {
							if a.Number < b.Number {
								c.Net.Reset(a.Number, b.Number)
							}
						}
					}
					select {
					case <-done:
						return
					case <-time.After(time.Duration(50+random.IntN(200)) * time.Millisecond):
					}
				}
			}()
			return func() error { close(done); <-ended; return nil }, nil
		}},
		{"all killed", func(_ context.Context, c *Cluster, _ *rand.Rand) (func() error, error) {
			all := c.Running()
			for _, m := range all {
				m.Kill()
			}
			return func() error {
				for _, m := range all {
					if err := m.back(); err != nil {
						return err
					}
				}
				return nil
			}, nil
		}},
	}
}

// FaultsOfFive need a minority of two.
func FaultsOfFive() []Fault {
	return []Fault{
		onLeader("isolated with one more", func(c *Cluster, leader *Member) (func() error, error) {
			c.Split([]*Member{leader, another(c, leader)})
			return healed(c), nil
		}),
		onLeader("killed with one more", func(c *Cluster, leader *Member) (func() error, error) {
			second := another(c, leader)
			leader.Kill()
			second.Kill()
			return func() error {
				if err := leader.back(); err != nil {
					return err
				}
				return second.back()
			}, nil
		}),
		onLeader("paused with one more", func(c *Cluster, leader *Member) (func() error, error) {
			second := another(c, leader)
			if err := leader.Signal(syscall.SIGSTOP); err != nil {
				return nil, err
			}
			return func() error {
				if err := leader.Signal(syscall.SIGCONT); err != nil {
					return err
				}
				return second.Signal(syscall.SIGCONT)
			}, second.Signal(syscall.SIGSTOP)
		}),
	}
}

func another(c *Cluster, than *Member) *Member {
	for _, m := range c.Running() {
		if m != than {
			return m
		}
	}
	return than
}

// AwaitService reads a key through any member until that is answered, and
// returns how long that took.
func (c *Cluster) AwaitService(ctx context.Context, key string) (time.Duration, error) {
	began := time.Now()
	client, err := newClient(endpoints(c.Running()))
	if err != nil {
		return 0, err
	}
	defer client.Close()
	for n := 0; ; n++ {
		short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		_, err := client.Get(short, key) // linearizable: takes what a write takes, and leaves the history alone
		cancel()
		if err == nil {
			return time.Since(began), nil
		}
		if stopped := pause(ctx); stopped != nil {
			return 0, fmt.Errorf("nobody serves a linearizable read: %w", err)
		}
	}
}
