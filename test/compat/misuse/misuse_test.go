// Package misuse speaks HTTP/2 as no client should: floods, headers without an
// end, windows that never open, connections by the hundred. Meanwhile another
// client must be served as ever, and the server's memory must stay bounded.
//
//	attacker ──frames──► server ◄──put, put, put── witness
//	                       └── resident memory, sampled
//
// The same is done to etcd, so that the table shows both; the bounds are ours.
package misuse

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"milepost.dev/test/compat/harness"
)

const (
	// attackFor is how long one attack goes on, unless it is cut off before.
	attackFor = 2 * time.Second
	// witnessWithin is the time in which a put beside an attack must be done.
	witnessWithin = 10 * time.Second
	mib           = 1 << 20
)

// attack is one way to misuse a server.
type attack struct {
	name string
	// run goes on until the context ends or the server hangs up; it returns how
	// much was sent, in whatever counts.
	run func(ctx context.Context, s *harness.Server) string
	// most is the bound of what the server's heap may grow by, in bytes.
	most int64
	// cutOff: the server must end the connection itself.
	cutOff bool
}

// link is one connection of an attacker.
type link struct {
	net.Conn
	*http2.Framer
	// ended is closed when the server has hung up; how says with which words.
	ended chan struct{}
	how   string
}

// open connects. If listen, all that the server says is read and dropped;
// otherwise nothing is ever read.
func open(ctx context.Context, s *harness.Server, listen bool, settings ...http2.Setting) (*link, error) {
	conn, err := net.DialTimeout("tcp", strings.TrimPrefix(s.ClientURL, "http://"), witnessWithin)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetWriteDeadline(deadline) // a closed connection tells at the first write
	}
	l := &link{Conn: conn, Framer: http2.NewFramer(conn, conn), ended: make(chan struct{}), how: "kept"}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return nil, err
	}
	if err := l.WriteSettings(settings...); err != nil {
		return nil, err
	}
	if listen {
		go l.listen()
	}
	return l, nil
}

func (l *link) listen() {
	defer close(l.ended)
	for {
		frame, err := l.ReadFrame()
		if err != nil {
			if l.how == "kept" {
				l.how = "hung up"
			}
			return
		}
		if bye, is := frame.(*http2.GoAwayFrame); is {
			l.how = fmt.Sprintf("%s %q", bye.ErrCode, bye.DebugData())
		}
	}
}

// flood calls send until it fails, the server hangs up, or time is over.
func (l *link) flood(ctx context.Context, send func(n int) error) int {
	for n := 0; ; n++ {
		if n%64 == 0 {
			select {
			case <-ctx.Done():
				return n
			case <-l.ended:
				return n
			default:
			}
		}
		if send(n) != nil {
			return n
		}
	}
}

// verdict closes the connection and says how the server took it.
func (l *link) verdict(n int, what string) string {
	select {
	case <-l.ended:
	case <-time.After(200 * time.Millisecond):
		// It has not hung up by now: kept.
		l.Close()
		return fmt.Sprintf("%d %s, kept", n, what)
	}
	l.Close()
	return fmt.Sprintf("%d %s, %s", n, what, l.how)
}

// call is the header block of a gRPC call.
func call(method string, more ...hpack.HeaderField) []byte {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range append([]hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: method}, {Name: ":authority", Value: "localhost"},
		{Name: "content-type", Value: "application/grpc"}, {Name: "te", Value: "trailers"},
	}, more...) {
		_ = encoder.WriteField(field) // into memory
	}
	return block.Bytes()
}

// message is a request in gRPC's frame.
func message(body []byte) []byte {
	return append([]byte{0, byte(len(body) >> 24), byte(len(body) >> 16), byte(len(body) >> 8), byte(len(body))}, body...)
}

func (l *link) start(stream uint32, method string, end bool) error {
	return l.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: call(method), EndHeaders: true, EndStream: end})
}

// flooder is an attack by one kind of frame on one connection.
func flooder(name, what string, listen, cutOff bool, prepare func(*link) error, send func(l *link, n int) error) attack {
	return attack{name: name, most: 64 * mib, cutOff: cutOff, run: func(ctx context.Context, s *harness.Server) string {
		l, err := open(ctx, s, listen)
		if err != nil {
			return err.Error()
		}
		if prepare != nil {
			if err := prepare(l); err != nil {
				return err.Error()
			}
		}
		return l.verdict(l.flood(ctx, func(n int) error { return send(l, n) }), what)
	}}
}

const rangeMethod = "/etcdserverpb.KV/Range"

func attacks() []attack {
	watchOpen := func(l *link) error { return l.start(1, "/etcdserverpb.Watch/Watch", false) }
	return []attack{
		// Cut off only where the resets come faster than the calls are taken up.
		flooder("rapid reset", "streams", true, false, nil, func(l *link, n int) error {
			id := uint32(2*n + 1)
			if err := l.start(id, rangeMethod, false); err != nil {
				return err
			}
			return l.WriteRSTStream(id, http2.ErrCodeCancel)
		}),
		flooder("rapid reset, unread", "streams", false, false, nil, func(l *link, n int) error {
			id := uint32(2*n + 1)
			if err := l.start(id, rangeMethod, false); err != nil {
				return err
			}
			return l.WriteRSTStream(id, http2.ErrCodeCancel)
		}),
		flooder("streams that are never finished", "streams", true, false, nil, func(l *link, n int) error {
			if n > 5000 {
				return io.EOF
			}
			return l.start(uint32(2*n+1), rangeMethod, false)
		}),
		flooder("headers without end", "frames", true, true, func(l *link) error {
			return l.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: call(rangeMethod)})
		}, func(l *link, n int) error {
			return l.WriteContinuation(1, false, literal(fmt.Sprintf("x-%d", n), strings.Repeat("y", 8000)))
		}),
		flooder("empty continuations", "frames", true, true, func(l *link) error {
			return l.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: call(rangeMethod)})
		}, func(l *link, n int) error { return l.WriteContinuation(1, false, nil) }),
		flooder("headers that unpack to much", "calls", true, false, func(l *link) error {
			// One field of 4000 bytes enters the table…
			var block bytes.Buffer
			encoder := hpack.NewEncoder(&block)
			_ = encoder.WriteField(hpack.HeaderField{Name: "x", Value: strings.Repeat("y", 3900)})
			return l.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: append(call(rangeMethod), block.Bytes()...), EndHeaders: true, EndStream: true})
		}, func(l *link, n int) error {
			// …and is named by one byte, sixteen thousand times.
			block := append(staticCall(), bytes.Repeat([]byte{0x80 | 62}, 16000)...)
			return l.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*n + 3), BlockFragment: block, EndHeaders: true, EndStream: true})
		}),
		flooder("pings", "pings", true, true, nil, func(l *link, n int) error { return l.WritePing(false, [8]byte{1}) }),
		flooder("pings, unread", "pings", false, false, nil, func(l *link, n int) error { return l.WritePing(false, [8]byte{1}) }),
		flooder("settings", "frames", true, false, nil, func(l *link, n int) error {
			return l.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(n % 1000)})
		}),
		flooder("settings, unread", "frames", false, false, nil, func(l *link, n int) error { return l.WriteSettings() }),
		flooder("empty data", "frames", true, false, watchOpen, func(l *link, n int) error { return l.WriteData(1, false, nil) }),
		flooder("priorities", "frames", true, false, nil, func(l *link, n int) error {
			return l.WritePriority(uint32(2*(n%100000)+1), http2.PriorityParam{StreamDep: uint32(n % 7 * 2)})
		}),
		flooder("window overflow", "frames", true, true, nil, func(l *link, n int) error { return l.WriteWindowUpdate(0, 1<<31-1) }),
		flooder("frames of no kind", "frames", true, false, nil, func(l *link, n int) error {
			return l.WriteRawFrame(0xee, 0, 0, make([]byte, 1000))
		}),
		flooder("a frame too large", "frames", true, true, nil, func(l *link, n int) error {
			return l.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, 1<<20))
		}),
		flooder("answers to nothing", "frames", true, true, nil, func(l *link, n int) error { return l.WriteData(uint32(2*n+1), false, []byte("x")) }),
		{name: "tiny windows", most: 160 * mib, run: tinyWindows},
		{name: "idle connections", most: 96 * mib, run: func(ctx context.Context, s *harness.Server) string {
			return crowd(ctx, s, 1500, func(conn net.Conn) error {
				_, err := io.WriteString(conn, http2.ClientPreface+"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
				return err
			})
		}},
		{name: "silent connections", most: 64 * mib, run: func(ctx context.Context, s *harness.Server) string {
			return crowd(ctx, s, 1500, func(net.Conn) error { return nil })
		}},
		{name: "slow HTTP/1 headers", most: 64 * mib, run: func(ctx context.Context, s *harness.Server) string {
			return crowd(ctx, s, 500, func(conn net.Conn) error {
				_, err := io.WriteString(conn, "POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nX-Slow: ")
				return err
			})
		}},
		{name: "endless HTTP/1 headers", most: 64 * mib, cutOff: true, run: func(ctx context.Context, s *harness.Server) string {
			return plainFlood(ctx, s, "GET /version HTTP/1.1\r\nHost: x\r\n", "X-More: "+strings.Repeat("y", 1000)+"\r\n")
		}},
		{name: "endless JSON", most: 96 * mib, run: func(ctx context.Context, s *harness.Server) string {
			return plainFlood(ctx, s, "POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{\"key\":\"\n\r\n", "2000\r\n"+strings.Repeat("Y", 0x2000)+"\r\n")
		}},
	}
}

// literal is one header field that stays out of the table.
func literal(name, value string) []byte {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	_ = encoder.WriteField(hpack.HeaderField{Name: name, Value: value, Sensitive: true})
	return block.Bytes()
}

// staticCall is call's block without entering anything into the table.
func staticCall() []byte {
	var block []byte
	block = append(block, 0x83, 0x86) // POST, http
	for _, field := range [][2]string{{":path", rangeMethod}, {":authority", "localhost"}, {"content-type", "application/grpc"}} {
		block = append(block, literal(field[0], field[1])...)
	}
	return block
}

// tinyWindows asks for large answers and takes one byte of each.
func tinyWindows(ctx context.Context, s *harness.Server) string {
	conn, err := s.Dial()
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	if _, err := pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: []byte("large"), Value: make([]byte, mib/2)}); err != nil {
		return err.Error()
	}
	l, err := open(ctx, s, true, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
	if err != nil {
		return err.Error()
	}
	asked := l.flood(ctx, func(n int) error {
		if n == 100 {
			return io.EOF
		}
		id := uint32(2*n + 1)
		if err := l.start(id, rangeMethod, false); err != nil {
			return err
		}
		return l.WriteData(id, true, message(append([]byte{0x0a, 5}, "large"...)))
	})
	l.flood(ctx, func(n int) error {
		time.Sleep(time.Millisecond) // the point is to be slow
		return l.WriteWindowUpdate(uint32(2*(n%100)+1), 1)
	})
	return l.verdict(asked, "answers asked for")
}

// crowd opens many connections that then do nothing.
func crowd(ctx context.Context, s *harness.Server, many int, greet func(net.Conn) error) string {
	var conns []net.Conn
	defer func() {
		for _, conn := range conns {
			conn.Close()
		}
	}()
	for range many {
		conn, err := net.DialTimeout("tcp", strings.TrimPrefix(s.ClientURL, "http://"), witnessWithin)
		if err != nil {
			return fmt.Sprintf("%d connections, then %v", len(conns), err)
		}
		conns = append(conns, conn)
		if err := greet(conn); err != nil {
			return fmt.Sprintf("%d connections, then %v", len(conns), err)
		}
	}
	<-ctx.Done()
	return fmt.Sprintf("%d connections", len(conns))
}

// plainFlood sends the same text over and over on one connection.
func plainFlood(ctx context.Context, s *harness.Server, first, again string) string {
	conn, err := net.DialTimeout("tcp", strings.TrimPrefix(s.ClientURL, "http://"), witnessWithin)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline) // a closed connection tells at the first write
	}
	sent := 0
	for text := first; ; text = again {
		n, err := io.WriteString(conn, text)
		sent += n
		switch {
		case err == nil && ctx.Err() == nil:
		case err == nil || strings.Contains(err.Error(), "timeout"):
			return fmt.Sprintf("%d MiB, kept", sent/mib)
		default:
			return fmt.Sprintf("%d KiB, hung up", sent/1024)
		}
	}
}

// result is what one attack did to one server.
type result struct {
	name, said    string
	grown, slow   int64 // bytes; longest put in milliseconds
	puts          int
	before, after int64
}

// TestMisuse runs all attacks on both servers.
func TestMisuse(t *testing.T) {
	same := harness.SubjectIsReference(t)
	var mu sync.Mutex
	var rows []string
	t.Run("attacks", func(t *testing.T) {
		for _, a := range attacks() {
			t.Run(a.name, func(t *testing.T) {
				t.Parallel()
				for _, bin := range []harness.Binary{harness.Reference(t), harness.Subject(t)} {
					r := a.on(t, bin)
					mu.Lock()
					rows = append(rows, fmt.Sprintf("%-32s %-10s %6.1f MiB more at most, %5d puts, longest %4d ms; %s",
						a.name, bin.Name, float64(r.grown)/mib, r.puts, r.slow, r.said))
					mu.Unlock()
					if bin.Name == "reference" || same {
						continue
					}
					if r.grown > a.most {
						t.Errorf("the server grew by %.1f MiB, more than %.1f", float64(r.grown)/mib, float64(a.most)/mib)
					}
					if a.cutOff && strings.HasSuffix(r.said, "kept") {
						t.Errorf("the connection was not cut off: %s", r.said)
					}
				}
			})
		}
	})
	sort.Strings(rows)
	t.Logf("%d attacks\n%s", len(rows)/2, strings.Join(rows, "\n"))
}

func (a attack) on(t *testing.T, bin harness.Binary) result {
	s := harness.Start(t, bin, harness.Options{NoSync: true})
	defer s.Kill()
	kv := pb.NewKVClient(s.Conn(t))
	r := result{name: a.name}
	put := func() error {
		ctx, cancel := context.WithTimeout(context.Background(), witnessWithin)
		defer cancel()
		began := time.Now()
		_, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("witness"), Value: []byte("v")})
		r.slow = max(r.slow, time.Since(began).Milliseconds())
		r.puts++
		return err
	}
	if err := put(); err != nil {
		t.Fatalf("%s before the attack: %v", bin.Name, err)
	}
	before, err := s.Memory()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), attackFor)
	defer cancel()
	over := make(chan string, 1)
	go func() { over <- a.run(ctx, s) }()
	for r.said == "" {
		if err := put(); err != nil {
			t.Fatalf("%s beside the attack, after %d puts: %v", bin.Name, r.puts, err)
		}
		now, err := s.Memory()
		if err != nil {
			t.Fatalf("%s is gone: %v\n%s", bin.Name, err, s.LogTail(5))
		}
		r.grown = max(r.grown, now.Anonymous-before.Anonymous)
		select {
		case r.said = <-over:
		case <-time.After(5 * time.Millisecond): // the next sample
		}
	}
	if err := put(); err != nil {
		t.Fatalf("%s after the attack: %v", bin.Name, err)
	}
	return r
}
