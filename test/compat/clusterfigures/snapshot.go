package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"milepost.dev/test/compat/cluster"
	"milepost.dev/test/compat/harness"
)

const (
	// valueBytes is the size of the values that the follower misses.
	valueBytes = 64 << 10
	// putsPerSecond are asked of the leader all the while, each at its time
	// whether or not the one before has been answered.
	putsPerSecond = 200
)

// catchUp loads two of three members with mib MiB, starts the third, and
// compares the leader's answers meanwhile with those of before.
func catchUp(bin harness.Binary, mib int, length time.Duration) error {
	dir, err := os.MkdirTemp("", "clusterfigures")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if bin.Path, err = filepath.Abs(bin.Path); err != nil {
		return err
	}
	c, err := cluster.New(dir, []harness.Binary{bin, bin, bin}, "--snapshot-count=1000", "--quota-backend-bytes=8589934592")
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	if err := c.Start(ctx); err != nil {
		return err
	}
	leader, err := c.Leader(ctx)
	if err != nil {
		return err
	}
	var behind *cluster.Member
	for _, m := range c.Members() {
		if m != leader {
			behind = m
		}
	}
	behind.Kill()
	conn, err := leader.Conn()
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := load(ctx, conn, mib<<20/valueBytes); err != nil {
		return err
	}
	memory, err := anonymous(leader)
	if err != nil {
		return err
	}
	quiet, err := paced(ctx, conn, func() bool { return false }, length)
	if err != nil {
		return err
	}
	began := time.Now()
	if err := behind.Start(); err != nil {
		return err
	}
	caught := make(chan error, 1)
	go func() { caught <- behind.WaitReady(ctx) }()
	most, end := memory, time.Duration(0)
	var failed error
	during, err := paced(ctx, conn, func() bool {
		if now, err := anonymous(leader); err == nil && now > most {
			most = now
		}
		select {
		case failed = <-caught:
			end = time.Since(began)
			return true
		default:
			return false
		}
	}, 10*time.Minute)
	if err == nil {
		err = failed
	}
	if err != nil {
		return err
	}
	p99 := func(took []time.Duration) time.Duration { return took[len(took)*99/100].Round(100 * time.Microsecond) }
	fmt.Printf("%-8s a follower %d MiB behind: caught up in %s; puts at %d/s: p99 %s before, %s meanwhile (longest %s);"+
		" leader's anonymous memory %d MiB before, at most %d MiB\n", bin.Name, mib, end.Round(10*time.Millisecond),
		putsPerSecond, p99(quiet), p99(during), during[len(during)-1].Round(100*time.Microsecond), memory>>10, most>>10)
	return nil
}

// load puts count values of valueBytes, each of its own, under as many keys.
func load(ctx context.Context, conn *grpc.ClientConn, count int) error {
	const workers = 8
	var all sync.WaitGroup
	failed := make(chan error, workers)
	for n := range workers {
		all.Add(1)
		go func() {
			defer all.Done()
			kv, value := pb.NewKVClient(conn), make([]byte, valueBytes)
			for i := n; i < count; i += workers {
				copy(value, fmt.Sprint(i))
				if _, err := kv.Put(ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "s/%08d", i), Value: value}); err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	all.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// paced puts at putsPerSecond until done or for length, and says how long each
// put took from the moment it was due; sorted.
func paced(ctx context.Context, conn *grpc.ClientConn, done func() bool, length time.Duration) ([]time.Duration, error) {
	kv, value := pb.NewKVClient(conn), make([]byte, 256)
	var mu sync.Mutex
	var took []time.Duration
	var failed error
	var all sync.WaitGroup
	tick := time.NewTicker(time.Second / putsPerSecond)
	defer tick.Stop()
	end := time.Now().Add(length)
	for i := 0; time.Now().Before(end) && !done(); i++ {
		due := <-tick.C
		all.Add(1)
		go func() {
			defer all.Done()
			_, err := kv.Put(ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "q/%d", i%1000), Value: value})
			mu.Lock()
			defer mu.Unlock()
			took = append(took, time.Since(due))
			if err != nil {
				failed = err
			}
		}()
	}
	all.Wait()
	slices.Sort(took)
	if failed == nil && len(took) == 0 {
		failed = fmt.Errorf("no put was measured")
	}
	return took, failed
}

// anonymous is the member's anonymous resident memory in KiB.
func anonymous(m *cluster.Member) (int, error) {
	file, err := os.Open(fmt.Sprintf("/proc/%d/status", m.PID()))
	if err != nil {
		return 0, err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "RssAnon:"); ok {
			var kib int
			_, err := fmt.Sscan(rest, &kib)
			return kib, err
		}
	}
	return 0, fmt.Errorf("%s: no RssAnon", file.Name())
}
