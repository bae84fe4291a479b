// Command clusterfigures measures clusters of three members on one machine, an
// etcd's and the server under test's, one after the other in turns:
//
//	clusterfigures -etcd PATH -subject PATH [-rounds 5] [-seconds 5] [-clients 32] [-snapshot MIB]
//
// It prints puts per second with their 99th percentile and the CPU time per put
// over all members, how long it takes from the leader's death to the next
// acknowledged write, and, where -snapshot says so, how a follower catches up
// with so much data while others write. It judges nothing.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"milepost.dev/test/compat/cluster"
	"milepost.dev/test/compat/harness"
)

func main() {
	etcd := flag.String("etcd", "", "path of etcd, for instance of the built refetcd")
	subject := flag.String("subject", "", "path of the server under test")
	rounds := flag.Int("rounds", 5, "deaths of a leader each")
	seconds := flag.Int("seconds", 5, "of puts each")
	clients := flag.Int("clients", 32, "that put at once")
	mib := flag.Int("snapshot", 0, "MiB of values that a follower has missed; 0: no such measurement")
	flag.Parse()
	if *etcd == "" || *subject == "" {
		flag.Usage()
		os.Exit(2)
	}
	for _, bin := range []harness.Binary{{Name: "etcd", Path: *etcd}, {Name: "subject", Path: *subject}} {
		err := measure(bin, *rounds, *clients, time.Duration(*seconds)*time.Second)
		if err == nil && *mib > 0 {
			err = catchUp(bin, *mib, time.Duration(*seconds)*time.Second)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, bin.Name+":", err)
			os.Exit(1)
		}
	}
}

func measure(bin harness.Binary, rounds, clients int, length time.Duration) error {
	dir, err := os.MkdirTemp("", "clusterfigures")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if bin.Path, err = filepath.Abs(bin.Path); err != nil {
		return err
	}
	c, err := cluster.New(dir, []harness.Binary{bin, bin, bin}) // with the default clocks
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(1+rounds)*time.Minute+length)
	defer cancel()
	if err := c.Start(ctx); err != nil {
		return err
	}
	if err := puts(ctx, c, bin.Name, clients, length); err != nil {
		return err
	}
	return deaths(ctx, c, bin.Name, rounds)
}

// puts measures puts of 256 bytes, spread over all members.
func puts(ctx context.Context, c *cluster.Cluster, name string, clients int, length time.Duration) error {
	before, err := cpu(c)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var took []time.Duration
	var failed error
	end := time.Now().Add(length)
	var all sync.WaitGroup
	for n := range clients {
		conn, err := c.Members()[n%3].Conn()
		if err != nil {
			return err
		}
		defer conn.Close()
		all.Add(1)
		go func() {
			defer all.Done()
			kv, value := pb.NewKVClient(conn), make([]byte, 256)
			var mine []time.Duration
			for i := 0; time.Now().Before(end); i++ {
				began := time.Now()
				_, err := kv.Put(ctx, &pb.PutRequest{Key: fmt.Appendf(nil, "p/%d/%d", n, i%1000), Value: value})
				if err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
					return
				}
				mine = append(mine, time.Since(began))
			}
			mu.Lock()
			took = append(took, mine...)
			mu.Unlock()
		}()
	}
	all.Wait()
	if failed != nil {
		return failed
	}
	after, err := cpu(c)
	if err != nil {
		return err
	}
	slices.Sort(took)
	fmt.Printf("%-8s %8.0f puts/s, p50 %s, p99 %s, %s CPU per put over three members (%d clients)\n", name,
		float64(len(took))/length.Seconds(), took[len(took)/2].Round(10*time.Microsecond),
		took[len(took)*99/100].Round(10*time.Microsecond),
		((after - before) / time.Duration(len(took))).Round(time.Microsecond), clients)
	return nil
}

// clockTick is USER_HZ, which Linux fixes for what it tells programs.
const clockTick = time.Second / 100

// cpu is the time that all members have used so far.
func cpu(c *cluster.Cluster) (time.Duration, error) {
	sum := time.Duration(0)
	for _, m := range c.Running() {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.PID()))
		if err != nil {
			return 0, err
		}
		// Behind the name in parentheses: fields 14 and 15 of the line are 12 and 13 here.
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		for _, field := range fields[11:13] {
			ticks, err := strconv.Atoi(field)
			if err != nil {
				return 0, err
			}
			sum += time.Duration(ticks) * clockTick
		}
	}
	return sum, nil
}

// deaths kills the leader again and again.
func deaths(ctx context.Context, c *cluster.Cluster, name string, rounds int) error {
	var took []time.Duration
	for range rounds {
		leader, err := c.Leader(ctx)
		if err != nil {
			return err
		}
		var others []*cluster.Member
		for _, m := range c.Running() {
			if m != leader {
				others = append(others, m)
			}
		}
		conn, err := others[0].Conn()
		if err != nil {
			return err
		}
		kv := pb.NewKVClient(conn)
		leader.Kill()
		began := time.Now()
		for {
			// A proposal that a dead leader was sent is lost: it is not waited for.
			short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			_, err := kv.Put(short, &pb.PutRequest{Key: []byte("death")})
			cancel()
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				return err
			}
		}
		took = append(took, time.Since(began))
		conn.Close()
		if err := leader.Start(); err != nil {
			return err
		}
		if err := c.WaitReady(ctx); err != nil {
			return err
		}
	}
	slices.Sort(took)
	fmt.Printf("%-8s leader's death to the next acknowledged write: median %s, from %s to %s (%d deaths)\n", name,
		took[len(took)/2].Round(time.Millisecond), took[0].Round(time.Millisecond), took[len(took)-1].Round(time.Millisecond), len(took))
	return nil
}
