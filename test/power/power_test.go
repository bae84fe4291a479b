package power

import (
	"context"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"milepost.dev/test/compat/harness"
)

const traced = "trace=openat,write,writev,pwrite64,pwritev,pwritev2,fdatasync,fsync,ftruncate,fallocate," +
	"rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,close,lseek"

// Acknowledged writes of one worker: worker w writes pair (w/a, w/b) with a counter in one transaction.
type ack struct {
	at       float64
	worker   int
	counter  int
	revision int64
}

func number(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

func binary(t *testing.T) string {
	path := os.Getenv("MILEPOST_BIN")
	if path == "" {
		path = "../../target/ci/milepost"
	}
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// seat is where one member listens, at all its starts.
type seat struct{ client, peer string }

func freeSeat(t *testing.T) seat {
	t.Helper()
	url := func() string {
		addr, err := harness.Reserve()
		if err != nil {
			t.Fatal(err)
		}
		return "http://" + addr
	}
	return seat{client: url(), peer: url()}
}

type member struct {
	cmd    *exec.Cmd
	client *clientv3.Client
	gone   chan error
	log    string
}

// start runs the member on dir, with wrapper in front of the command if there is one, and waits for its first answer.
//
// The peer's address is part of who the member is: the same for all its starts.
func start(t *testing.T, dir string, at seat, wrapper ...string) (*member, error) {
	words := append(wrapper, binary(t), "--data-dir", dir, "--listen-client-urls", at.client, "--advertise-client-urls", at.client,
		"--listen-peer-urls", at.peer, "--initial-advertise-peer-urls", at.peer, "--initial-cluster", "default="+at.peer,
		"--snapshot-count", "300")
	m := &member{cmd: exec.Command(words[0], words[1:]...), gone: make(chan error, 1), log: dir + ".log"}
	out, err := os.Create(m.log)
	if err != nil {
		t.Fatal(err)
	}
	m.cmd.Stdout, m.cmd.Stderr = out, out
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	out.Close()
	go func() { m.gone <- m.cmd.Wait(); close(m.gone) }()
	m.client, err = clientv3.New(clientv3.Config{Endpoints: []string{at.client}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	answered := make(chan error, 1)
	go func() { _, err := m.client.Get(ctx, "first"); answered <- err }()
	select {
	case err := <-answered:
		if err != nil {
			m.kill()
			return m, fmt.Errorf("no answer: %w", err)
		}
		return m, nil
	case err := <-m.gone:
		cancel()
		m.client.Close()
		return m, fmt.Errorf("it ended: %v", err)
	}
}

func (m *member) kill() {
	syscall.Kill(-m.cmd.Process.Pid, syscall.SIGKILL)
	for range m.gone { // its port is free once it is gone
	}
	m.client.Close()
}

func now() float64 { return float64(time.Now().UnixNano()) / 1e9 }

// load writes for a time, and on a slow disk until enough is acknowledged; every acknowledgement is noted with the time at
// which it was seen.
func load(t *testing.T, m *member, workers int) []ack {
	const length, enough = 6 * time.Second, 500
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	begin := time.Now()
	var (
		mu   sync.Mutex
		acks []ack
		wg   sync.WaitGroup
	)
	for w := range workers {
		wg.Go(func() {
			padding := strings.Repeat("x", 40+w*300)
			for counter := 1; ctx.Err() == nil; counter++ {
				value := strconv.Itoa(counter) + " " + padding
				answer, err := m.client.Txn(ctx).Then(
					clientv3.OpPut(fmt.Sprintf("%d/a", w), value), clientv3.OpPut(fmt.Sprintf("%d/b", w), value)).Commit()
				if err != nil {
					continue
				}
				mu.Lock()
				acks = append(acks, ack{at: now(), worker: w, counter: counter, revision: answer.Header.Revision})
				if len(acks) >= enough && time.Since(begin) > length {
					cancel()
				}
				mu.Unlock()
				if w == 0 && counter%50 == 0 {
					m.client.Compact(ctx, answer.Header.Revision-20)
				}
			}
		})
	}
	wg.Wait()
	return acks
}

func TestPowerLoss(t *testing.T) {
	cuts, seed := number("POWER_CUTS", 20), int64(number("POWER_SEED", int(time.Now().UnixNano()%1_000_000)))
	t.Logf("POWER_SEED=%d POWER_CUTS=%d", seed, cuts)
	dice := rand.New(rand.NewSource(seed))
	base := t.TempDir()
	root, record := filepath.Join(base, "member"), filepath.Join(base, "record")
	seat := freeSeat(t)
	m, err := start(t, root, seat, "strace", "-f", "-ttt", "-xx", "-s", "16777216", "-e", traced, "-o", record)
	if err != nil {
		text, _ := os.ReadFile(m.log)
		t.Fatalf("under strace: %v\n%s", err, text)
	}
	ready := now()
	const workers = 6
	acks := load(t, m, workers)
	m.kill()
	events, err := readTrace(record)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d events on record, %d acknowledged writes", len(events), len(acks))
	first := 0
	for first < len(events) && events[first].at < ready {
		first++
	}
	if len(events)-first < 100 || len(acks) < 100 {
		t.Fatalf("too little happened to test anything: %d events, %d acknowledgements", len(events)-first, len(acks))
	}
	var tally Tally
	for i := range cuts {
		// One cut in five falls while the member forms, and the first while a sync is under way.
		n := first + dice.Intn(len(events)-first)
		if i%5 == 4 {
			n = dice.Intn(first + 1)
		}
		for i == 0 && n < len(events) && events[n-1].kind != kindSyncBegin {
			n++
		}
		dir := filepath.Join(base, fmt.Sprintf("cut-%d", i))
		checkCut(t, events, n, root, dir, seat, acks, rand.New(rand.NewSource(dice.Int63())), &tally)
		os.RemoveAll(dir)
	}
	fmt.Printf("power loss: %+v\n", tally)
	if tally.SectorsDropped == 0 || tally.SectorsKept == 0 || tally.CutsAfterAnAcknowledgement == 0 || tally.CutsInsideASync == 0 {
		t.Fatalf("something never happened: %+v", tally)
	}
}

func checkCut(t *testing.T, events []event, n int, root, dir string, seat seat, acks []ack, dice *rand.Rand, tally *Tally) {
	tally.Cuts++
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := cut(events, n, dice, tally).write(root, dir); err != nil {
		t.Fatal(err)
	}
	at := 0.0
	if n > 0 {
		at = events[n-1].at
	}
	m, err := start(t, dir, seat)
	if err != nil {
		text, _ := os.ReadFile(m.log)
		t.Errorf("cut at event %d: the member does not come up: %v\n%s", n, err, text)
		return
	}
	defer m.kill()
	newest := map[int]ack{}
	for _, a := range acks {
		if a.at < at {
			newest[a.worker] = a
		}
	}
	if len(newest) > 0 {
		tally.CutsAfterAnAcknowledgement++
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for w := range 6 {
		answer, err := m.client.Get(ctx, fmt.Sprintf("%d/", w), clientv3.WithPrefix())
		if err != nil {
			t.Errorf("cut at event %d: %v", n, err)
			return
		}
		want := newest[w]
		if len(answer.Kvs) == 0 && want.counter == 0 {
			continue
		}
		if len(answer.Kvs) != 2 || string(answer.Kvs[0].Value) != string(answer.Kvs[1].Value) {
			t.Errorf("cut at event %d: worker %d has half a transaction: %v", n, w, answer.Kvs)
			continue
		}
		text, _, _ := strings.Cut(string(answer.Kvs[0].Value), " ")
		got, _ := strconv.Atoi(text)
		if got < want.counter || answer.Kvs[0].ModRevision < want.revision {
			t.Errorf("cut at event %d: worker %d: acknowledged %d at revision %d, found %d at revision %d",
				n, w, want.counter, want.revision, got, answer.Kvs[0].ModRevision)
		}
	}
	if _, err := m.client.Put(ctx, "after", "the cut"); err != nil {
		t.Errorf("cut at event %d: the member takes no writes: %v", n, err)
	}
}
