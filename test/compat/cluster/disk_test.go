package cluster

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// writer puts values of 100 kB through some members and remembers what was
// acknowledged.
type writer struct {
	client  *clientv3.Client
	written []string
	tried   int
}

func newWriter(t *testing.T, members []*Member) *writer {
	t.Helper()
	client, err := newClient(endpoints(members))
	must(t, err)
	t.Cleanup(func() { client.Close() })
	return &writer{client: client}
}

func (w *writer) put(ctx context.Context) error {
	short, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	w.tried++
	key := fmt.Sprintf("full/%d", w.tried)
	_, err := w.client.Put(short, key, string(make([]byte, 100_000)))
	if err == nil {
		w.written = append(w.written, key)
	}
	return err
}

// puts goes on until so many were acknowledged.
func (w *writer) puts(ctx context.Context, t *testing.T, n int) {
	t.Helper()
	for n > 0 {
		err := w.put(ctx)
		if err == nil {
			n--
		} else if ctx.Err() != nil || strings.Contains(err.Error(), "database space exceeded") {
			t.Fatalf("%d writes are still to do: %v", n, err)
		}
	}
}

// allAt reads everything that was acknowledged from one member.
func (w *writer) allAt(ctx context.Context, t *testing.T, m *Member, how ...clientv3.OpOption) {
	t.Helper()
	at, err := m.Client()
	must(t, err)
	defer at.Close()
	got, err := at.Get(ctx, "full/", append(how, clientv3.WithPrefix(), clientv3.WithKeysOnly())...)
	must(t, err)
	there := map[string]bool{}
	for _, kv := range got.Kvs {
		there[string(kv.Key)] = true
	}
	for _, key := range w.written {
		if !there[key] {
			t.Errorf("%s was acknowledged and is not at %s", key, m)
		}
	}
}

func without(members []*Member, m *Member) []*Member {
	return slices.DeleteFunc(slices.Clone(members), func(other *Member) bool { return other == m })
}

// TestStuckDisk: the leader's syncs do not return. It is no leader any more,
// while they still do not, and has it all once they do.
func TestStuckDisk(t *testing.T) {
	parallel(t)
	ctx := deadline(t, 2*time.Minute)
	c := started(t, of(t, 3))
	counts := newTally(t, "led by others", "writes beside a stuck disk", "equal hashes")
	for range 2 {
		victim, err := c.Leader(ctx)
		must(t, err)
		w := newWriter(t, without(c.Members(), victim))
		w.puts(ctx, t, 1)
		release, err := victim.Spoil("delay_enter=120000000")
		must(t, err)
		w.puts(ctx, t, 20)
		counts.add("writes beside a stuck disk", 20)
		for {
			leader, err := c.Leader(ctx)
			must(t, err)
			if leader != victim {
				counts.add("led by others", 1)
				break
			}
			must(t, pause(ctx))
		}
		must(t, release())
		_, err = c.SameHashes(ctx)
		must(t, err)
		counts.add("equal hashes", 3)
		w.allAt(ctx, t, victim)
	}
}

// TestFailingDisk: syncs of one member fail. It ends, since nobody knows what is
// on that disk, and says so; the others go on; it comes back with a disk that
// works.
func TestFailingDisk(t *testing.T) {
	parallel(t)
	ctx := deadline(t, 2*time.Minute)
	c := started(t, of(t, 3))
	counts := newTally(t, "leader ended", "follower ended", "writes beside a failing disk", "equal hashes")
	for _, role := range []string{"leader", "follower"} {
		victim, err := c.Leader(ctx)
		must(t, err)
		if role == "follower" {
			victim = another(c, victim)
		}
		w := newWriter(t, without(c.Members(), victim))
		before := len(victim.Log())
		release, err := victim.Spoil("error=EIO")
		must(t, err)
		w.puts(ctx, t, 20)
		counts.add("writes beside a failing disk", 20)
		how, err := victim.End(30 * time.Second)
		must(t, err)
		said := victim.Log()[before:]
		if how == "exit 0" || !regexp.MustCompile(`(?i)(sync|save).*input/output error`).MatchString(said) {
			t.Errorf("with a failing disk it ended with %s: %s", how, victim.LogTail(4))
		}
		t.Logf("the %s ended with %s: %s", role, how, victim.LogTail(1))
		counts.add(role+" ended", 1)
		must(t, release())
		must(t, victim.Start())
		must(t, victim.WaitReady(ctx))
		_, err = c.SameHashes(ctx)
		must(t, err)
		counts.add("equal hashes", 3)
		w.allAt(ctx, t, victim)
	}
}
