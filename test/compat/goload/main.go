// Command goload loads a server through the usual Go client, closed loop, and
// prints the figures of `milepost bench --json` by the same names: so that no
// gain in the comparison is an artefact of our own load generator.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Linux shows 100 ticks a second to programs, see proc(5).
const microsPerTick = 10_000

type load struct {
	op       string
	keys     int
	value    string
	deadline time.Time
}

func main() {
	endpoint := flag.String("endpoint", "127.0.0.1:2379", "server")
	op := flag.String("op", "put", "put or get")
	conns := flag.Int("conns", 100, "connections")
	clients := flag.Int("clients", 1000, "requests under way at once")
	keys := flag.Int("keys", 100_000, "different keys")
	size := flag.Int("val-size", 256, "bytes of a value")
	duration := flag.Duration("duration", 5*time.Second, "how long")
	pid := flag.String("server-pid", "", "process whose CPU is the server's")
	flag.Parse()
	if *op != "put" && *op != "get" {
		fail(fmt.Errorf("-op %q is neither put nor get", *op))
	}

	var all []*clientv3.Client
	for range *conns {
		client, err := clientv3.New(clientv3.Config{
			Endpoints: []string{*endpoint}, DialTimeout: 10 * time.Second, Logger: zap.NewNop(),
		})
		fail(err)
		defer client.Close()
		// A client connects with its first call.
		_, err = client.Get(context.Background(), "g0000000")
		fail(err)
		all = append(all, client)
	}

	before, own := ticks(*pid), ticks(strconv.Itoa(os.Getpid()))
	start := time.Now()
	work := load{op: *op, keys: *keys, value: strings.Repeat("v", *size), deadline: start.Add(*duration)}
	times := make([][]time.Duration, *clients)
	var group sync.WaitGroup
	for number := range *clients {
		group.Go(func() {
			times[number] = work.run(all[number%len(all)])
		})
	}
	group.Wait()
	elapsed := time.Since(start)
	after, ownAfter := ticks(*pid), ticks(strconv.Itoa(os.Getpid()))

	var sorted []time.Duration
	for _, some := range times {
		sorted = append(sorted, some...)
	}
	if len(sorted) == 0 {
		fail(fmt.Errorf("no answer in %v", *duration))
	}
	sort.Slice(sorted, func(i, j int) bool { return sorted[i] < sorted[j] })
	count := float64(len(sorted))
	at := func(share float64) float64 {
		return float64(sorted[int(share*(count-1))].Nanoseconds()) / 1000
	}
	report := map[string]any{
		"command": "goload " + *op, "ops": len(sorted), "seconds": elapsed.Seconds(),
		"ops_per_second": count / elapsed.Seconds(),
		"p50_us":         at(0.5), "p99_us": at(0.99), "p999_us": at(0.999), "max_us": at(1),
		"bench_cpu_us_per_op": float64(ownAfter-own) * microsPerTick / count,
	}
	if *pid != "" {
		report["server_cpu_us_per_op"] = float64(after-before) * microsPerTick / count
	}
	line, err := json.Marshal(report)
	fail(err)
	fmt.Println(string(line))
}

// run asks until the time is up, and returns how long each answer took.
func (l load) run(client *clientv3.Client) []time.Duration {
	var times []time.Duration
	for began := time.Now(); began.Before(l.deadline); {
		// Eight bytes, and none of the digits alone that the other rows use.
		key := fmt.Sprintf("g%07d", rand.IntN(l.keys))
		var err error
		if l.op == "put" {
			_, err = client.Put(context.Background(), key, l.value)
		} else {
			_, err = client.Get(context.Background(), key)
		}
		fail(err)
		now := time.Now()
		times = append(times, now.Sub(began))
		began = now
	}
	return times
}

// ticks is the CPU time of a process so far; 0 without one.
func ticks(pid string) int64 {
	if pid == "" {
		return 0
	}
	stat, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
	fail(err)
	// The command in parentheses may hold blanks; fields 14 and 15 count from before it.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	var sum int64
	for _, field := range fields[11:13] {
		value, err := strconv.ParseInt(string(field), 10, 64)
		fail(err)
		sum += value
	}
	return sum
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "goload:", err)
		os.Exit(1)
	}
}
