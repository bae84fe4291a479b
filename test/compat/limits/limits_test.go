// Package limits holds bad clients against the server under test: one that
// never reads, one with very many watchers, some that send too much, stop in
// the middle or talk nonsense. Memory stays bounded and nobody else notices.
package limits

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"milepost.dev/test/compat/differ"
	"milepost.dev/test/compat/harness"
)

// mib is what memory is told in.
const mib = 1 << 20

// callWithin is what an innocent client may be made to wait at the very most.
const callWithin = 10 * time.Second

// start runs the server under test. Etcd's collector is kept on a short leash,
// so that the figures mean something when etcd is the subject.
func start(t *testing.T) *harness.Server {
	t.Helper()
	return harness.Start(t, harness.Subject(t), harness.Options{NoSync: true, Env: []string{"GOGC=20"}})
}

func anonymous(t *testing.T, server *harness.Server) int64 {
	t.Helper()
	m, err := server.Memory()
	if err != nil {
		t.Fatal(err)
	}
	return m.Anonymous
}

// put writes once and returns how long it took.
func put(t *testing.T, conn *grpc.ClientConn, key string, value []byte) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), callWithin)
	defer cancel()
	from := time.Now()
	if _, err := pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: []byte(key), Value: value}); err != nil {
		t.Fatalf("an innocent client: %v", err)
	}
	return time.Since(from)
}

// median is the middle of some durations.
func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

// assertOwn checks a bound that only our server promises; for etcd it is told.
func assertOwn(t *testing.T, holds bool, format string, args ...any) {
	t.Helper()
	if holds {
		return
	}
	if harness.SubjectIsReference(t) {
		t.Logf("etcd itself: "+format, args...)
		return
	}
	t.Errorf(format, args...)
}

func createWatch(key, end string, start int64) *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: &pb.WatchCreateRequest{
		Key: []byte(key), RangeEnd: []byte(end), StartRevision: start,
	}}}
}

// TestNeverReads: a client opens a watch and never reads its replies. Others
// write past it, 100 MiB and then 500 MiB more: its queue has a bound, so that
// the second part adds little; they are not slowed, another watcher sees
// everything at once, and once it reads, nothing is missing.
func TestNeverReads(t *testing.T) {
	const first, second, size = 200, 1000, 512 << 10
	const puts = first + second
	value := bytes.Repeat([]byte{'n'}, size)
	// fill returns by how much the second part makes memory grow.
	fill := func(server *harness.Server) (grown int64, middle time.Duration) {
		conn := server.Conn(t)
		took := make([]time.Duration, puts)
		held := int64(0)
		for i := range took {
			if i == first {
				held = anonymous(t, server)
			}
			took[i] = put(t, conn, "n", value)
		}
		return anonymous(t, server) - held, median(took)
	}
	alone := start(t)
	grownAlone, medianAlone := fill(alone)
	alone.Kill()

	server := start(t)
	lazy := openWatch(t, server.Conn(t, grpc.WithInitialWindowSize(64<<10), grpc.WithInitialConnWindowSize(64<<10)))
	eager := openWatch(t, server.Conn(t))
	seen := make(chan error, 1)
	go func() { seen <- everyRevision(eager, 2, 2+puts) }()
	grown, medianBeside := fill(server)
	select {
	case err := <-seen:
		if err != nil {
			t.Errorf("the watcher beside it: %v", err)
		}
	case <-time.After(callWithin):
		t.Error("the watcher beside it does not get everything")
	}
	t.Logf("while 500 MiB are written anonymous memory grows by %d MiB alone, by %d MiB beside a client that never reads; a put takes %s and %s",
		grownAlone/mib, grown/mib, medianAlone, medianBeside)
	assertOwn(t, grown < 250*mib, "500 MiB past a client that never reads cost %d MiB", grown/mib)
	if medianBeside > 5*medianAlone+20*time.Millisecond {
		t.Errorf("beside a client that never reads a put takes %s instead of %s", medianBeside, medianAlone)
	}
	if err := everyRevision(lazy, 2, 2+puts); err != nil {
		t.Errorf("the slow client, once it reads: %v", err)
	}
}

// openWatch opens a watch of the key n and reads no further than its creation.
func openWatch(t *testing.T, conn *grpc.ClientConn) pb.Watch_WatchClient {
	t.Helper()
	stream, err := pb.NewWatchClient(conn).Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(createWatch("n", "", 0)); err != nil {
		t.Fatal(err)
	}
	if reply, err := stream.Recv(); err != nil || !reply.Created {
		t.Fatalf("instead of a created reply: %v, %v", reply, err)
	}
	return stream
}

// everyRevision reads events until each revision of a span has come, in order.
func everyRevision(stream pb.Watch_WatchClient, from, to int64) error {
	for next := from; next < to; {
		reply, err := stream.Recv()
		if err != nil {
			return fmt.Errorf("at revision %d: %w", next, err)
		}
		for _, ev := range reply.Events {
			if ev.Kv.ModRevision != next {
				return fmt.Errorf("revision %d came where %d was due", ev.Kv.ModRevision, next)
			}
			next++
		}
	}
	return nil
}

// TestManyWatchers: COMPAT_WATCHERS watchers (10,000 by default) on one
// stream. They cost bounded memory, all get what they watch, and others are
// not slowed.
func TestManyWatchers(t *testing.T) {
	count := harness.IntEnv(t, "COMPAT_WATCHERS", 10_000)
	server := start(t)
	conn := server.Conn(t)
	quiet := make([]time.Duration, 50)
	for i := range quiet {
		quiet[i] = put(t, conn, "others", []byte("v"))
	}
	before := anonymous(t, server)
	stream, err := differ.OpenWatchStream(&differ.Side{Server: server, Conn: server.Conn(t)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	opened := time.Now()
	for i := range count { // a tenth each on one key, the rest on keys of their own
		key := fmt.Sprintf("watched/%06d", i)
		if i%10 == 0 {
			key = "shared"
		}
		if err := stream.Send(createWatch(key, "", 0)); err != nil {
			t.Fatal(err)
		}
	}
	created := func(r *pb.WatchResponse) bool { return r.Created && !r.Canceled }
	if err := stream.AwaitFor(2*time.Minute, func(log []*pb.WatchResponse) bool {
		return len(log) >= count && differ.Count(log, created) == count
	}); err != nil {
		log, _ := stream.Replies()
		t.Fatalf("%d of %d watchers: %v", differ.Count(log, created), count, err)
	}
	grown := anonymous(t, server) - before
	t.Logf("%d watchers opened in %s: anonymous memory grew by %d KiB, %d bytes each",
		count, time.Since(opened).Round(time.Millisecond), grown>>10, grown/int64(count))
	assertOwn(t, grown < 32*mib+int64(count)*3072, "%d watchers cost %d MiB", count, grown/mib)

	loud := make([]time.Duration, 50)
	for i := range loud {
		loud[i] = put(t, conn, "others", []byte("v"))
	}
	t.Logf("a put of somebody else took %s before and %s beside them", median(quiet), median(loud))
	if median(loud) > 5*median(quiet)+20*time.Millisecond {
		t.Errorf("watchers of other keys slow a put from %s to %s", median(quiet), median(loud))
	}
	put(t, conn, "shared", []byte("v"))
	put(t, conn, "watched/000001", []byte("v"))
	sharers := (count + 9) / 10
	withEvents := func(r *pb.WatchResponse) bool { return len(r.Events) > 0 }
	if err := stream.Await(func(log []*pb.WatchResponse) bool {
		return len(log) >= count+sharers+1 && differ.Count(log, withEvents) == sharers+1
	}); err != nil {
		log, _ := stream.Replies()
		t.Errorf("%d of %d watchers were told: %v", differ.Count(log, withEvents), sharers+1, err)
	}
}

// TestTooLarge: messages above the limit are refused one after the other, and
// leave nothing behind.
func TestTooLarge(t *testing.T) {
	server := start(t)
	conn := server.Conn(t)
	put(t, conn, "k", []byte("kept"))
	before := anonymous(t, server)
	huge := bytes.Repeat([]byte{'x'}, 8*mib)
	for range 30 {
		_, err := pb.NewKVClient(conn).Put(context.Background(), &pb.PutRequest{Key: []byte("k"), Value: huge})
		if got := status.Convert(err); got.Code() != codes.ResourceExhausted ||
			!strings.HasPrefix(got.Message(), "grpc: received message larger than max (") {
			t.Fatalf("8 MiB: %v", got)
		}
	}
	grown := anonymous(t, server) - before
	t.Logf("30 refused messages of 8 MiB: anonymous memory grew by %d KiB", grown>>10)
	assertOwn(t, grown < 48*mib, "refused messages cost %d MiB", grown/mib)
	got, err := pb.NewKVClient(conn).Range(context.Background(), &pb.RangeRequest{Key: []byte("k")})
	if err != nil || got.Header.Revision != 2 || string(got.Kvs[0].Value) != "kept" {
		t.Errorf("after the refusals: %v, %v", got, err)
	}
}

// TestHalfOpen: hundreds of connections that stop in the middle of something,
// and streams that are half-closed or left lying about.
func TestHalfOpen(t *testing.T) {
	server := start(t)
	address := strings.TrimPrefix(server.ClientURL, "http://")
	for _, said := range []string{
		"", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "PRI * HT", "GET /health HTTP/1.1\r\nHost: x\r\n",
		"POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc", "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1", "nonsense\r\n\r\n",
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00" + strings.Repeat("\xff", 64),
	} {
		for range 40 {
			tcp, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer tcp.Close()
			if _, err := io.WriteString(tcp, said); err != nil {
				t.Fatal(err)
			}
		}
	}
	conn := server.Conn(t)
	for i := range 200 {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		watch, err := pb.NewWatchClient(conn).Watch(ctx)
		if err != nil {
			t.Fatal(err)
		}
		alive, err := pb.NewLeaseClient(conn).LeaseKeepAlive(ctx)
		if err != nil {
			t.Fatal(err)
		}
		switch i % 4 {
		case 0: // nothing is ever sent
		case 1:
			if err := watch.CloseSend(); err != nil {
				t.Fatal(err)
			}
			if err := alive.CloseSend(); err != nil {
				t.Fatal(err)
			}
			if _, err := alive.Recv(); err != io.EOF {
				t.Errorf("an empty keep-alive stream ended with %v", err)
			}
		case 2:
			if err := watch.Send(createWatch("k", "", 0)); err != nil {
				t.Fatal(err)
			}
			if err := watch.CloseSend(); err != nil {
				t.Fatal(err)
			}
		case 3:
			cancel()
		}
	}
	took := make([]time.Duration, 50)
	for i := range took {
		took[i] = put(t, server.Conn(t), "k", []byte("v"))
	}
	t.Logf("a put beside them, with a new connection, takes %s", median(took))
	code, err := server.Terminate()
	assertOwn(t, err == nil && (code == 0 || code == -1), "a stop with open connections: exit code %d, %v", code, err)
}
