package startup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"milepost.dev/test/compat/harness"
)

// effect is a flag and what can be seen of it from outside. Each is shown on
// etcd first: an effect that etcd does not have proves nothing.
type effect struct {
	name string
	args []string
	env  []string
	// before is run before the start.
	before func(t *testing.T, s *side) error
	// check is given the running server.
	check func(r *running) error
	// etcdOnly is why ours is not asked.
	etcdOnly string
	// after is given what was printed, after a SIGTERM.
	after func(r *running) error
}

// running is a server that has come up.
type running struct {
	*side
	p    *harness.Process
	conn *grpc.ClientConn
	// notify is the socket {dir}/notify, where the test has opened one.
	notify *net.UnixConn
}

func (r *running) kv() pb.KVClient { return pb.NewKVClient(r.conn) }

func (r *running) put(key string, size int) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	_, err := r.kv().Put(ctx, &pb.PutRequest{Key: []byte(key), Value: make([]byte, size)})
	return err
}

func (r *running) get(path string) (int, string, error) {
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(r.fill("http://{c}" + path))
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// until asks again and again.
func until(what func() error) error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := what()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(10 * time.Millisecond) // the answer is in another process
	}
}

func wantCode(err error, code codes.Code) error {
	if status.Code(err) != code {
		return fmt.Errorf("got %v, wanted code %s", err, code)
	}
	return nil
}

func effects() []effect {
	return []effect{
		{name: "quota", args: []string{"--quota-backend-bytes=200000"}, check: func(r *running) error {
			return until(func() error {
				return wantCode(r.put(fmt.Sprint(time.Now().UnixNano()), 50000), codes.ResourceExhausted)
			})
		}},
		{name: "request bytes", args: []string{"--max-request-bytes=1000"}, check: func(r *running) error {
			return errors.Join(r.put("k", 500), wantCode(r.put("k", 1500), codes.InvalidArgument))
		}},
		{name: "transaction operations", args: []string{"--max-txn-ops=1"}, check: func(r *running) error {
			op := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("k")}}}
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			_, one := r.kv().Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{op}})
			_, two := r.kv().Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{op, op}})
			return errors.Join(one, wantCode(two, codes.InvalidArgument))
		}},
		{name: "concurrent streams", args: []string{"--max-concurrent-streams=7"}, check: checkStreams},
		{name: "periodic compaction", args: []string{"--auto-compaction-retention=1s"}, check: func(r *running) error {
			return until(func() error {
				if err := r.put("k", 1); err != nil {
					return err
				}
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				defer cancel()
				_, err := r.kv().Range(ctx, &pb.RangeRequest{Key: []byte("k"), Revision: 2})
				return wantCode(err, codes.OutOfRange)
			})
		}},
		{name: "watch progress", args: []string{"--watch-progress-notify-interval=100ms"}, check: checkProgress},
		{name: "slow request warning", args: []string{"--warning-unary-request-duration=1ns"}, check: func(r *running) error {
			if err := r.put("k", 1); err != nil {
				return err
			}
			return r.awaitLog(`"level":"warn"`, "request stats")
		}},
		{name: "slow apply warning", args: []string{"--warning-apply-duration=1ns"}, check: func(r *running) error {
			if err := r.put("k", 1); err != nil {
				return err
			}
			return r.awaitLog(`"level":"warn"`, "apply request took too long")
		}},
		{name: "extensive metrics", args: []string{"--metrics=extensive"}, check: func(r *running) error {
			return r.page("/metrics", 200, "grpc_server_handling_seconds_bucket")
		}},
		{name: "gateway off", args: []string{"--enable-grpc-gateway=false"}, check: func(r *running) error {
			return r.page("/v3/kv/range", 404, "404 page not found")
		}},
		{name: "profiling", args: []string{"--enable-pprof"}, check: func(r *running) error {
			return r.page("/debug/pprof/", 200, "profile")
		}},
		{name: "no profiling", check: func(r *running) error {
			return r.page("/debug/pprof/", 404, "404 page not found")
		}},
		{name: "debug level brings profiling", args: []string{"--log-level=debug"}, check: func(r *running) error {
			return r.page("/debug/pprof/", 200, "profile")
		}},
		{name: "log folder", args: []string{"--wal-dir={dir}/log"}, check: func(r *running) error {
			if found, _ := filepath.Glob(r.dir + "/log/*.wal"); len(found) == 0 {
				return errors.New("no log in --wal-dir")
			}
			if found, _ := filepath.Glob(r.dir + "/data/member/wal/*.wal"); len(found) != 0 {
				return fmt.Errorf("a log outside --wal-dir: %s", found)
			}
			return nil
		}},
		{name: "snapshot count", args: []string{"--snapshot-count=10"}, check: func(r *running) error {
			return until(func() error {
				if err := r.put("k", 1); err != nil {
					return err
				}
				if found, _ := filepath.Glob(r.dir + "/data/member/snap/*.snap"); len(found) == 0 {
					return errors.New("no snapshot file")
				}
				return nil
			})
		}},
		{name: "data folder is private", check: func(r *running) error {
			info, err := os.Stat(r.dir + "/data")
			if err == nil && info.Mode().Perm() != 0o700 {
				err = fmt.Errorf("mode %o", info.Mode().Perm())
			}
			return err
		}},
		{name: "console log", args: []string{"--log-format=console"}, check: func(r *running) error {
			return r.awaitLog("\tinfo\t", "ready to serve client requests")
		}, after: func(r *running) error {
			if strings.Contains(r.p.Stderr(), `"level":`) {
				return errors.New("the log is JSON all the same")
			}
			return nil
		}},
		{name: "log on stdout", args: []string{"--log-outputs=stdout"}, after: func(r *running) error {
			if !strings.Contains(r.p.Stdout(), "closed etcd server") {
				return errors.New("the log is not on stdout")
			}
			return nil
		}},
		{name: "log in two places", args: []string{"--log-outputs={dir}/a.log,stderr"}, after: func(r *running) error {
			text, err := os.ReadFile(r.dir + "/a.log")
			if err == nil && (!strings.Contains(string(text), "closed etcd server") || !strings.Contains(r.p.Stderr(), "closed etcd server")) {
				err = errors.New("one of the two has no end")
			}
			return err
		}},
		{name: "log rotation", args: []string{"--log-outputs={dir}/a.log", "--enable-log-rotation", "--log-level=debug",
			`--log-rotation-config-json={"maxsize": 1}`, "--warning-apply-duration=1ns"}, check: checkRotation},
		{name: "log level error", args: []string{"--log-level=error"}, after: func(r *running) error {
			if strings.Contains(r.p.Stderr(), `"level":"info"`) || strings.Contains(r.p.Stderr(), `"level":"warn"`) {
				return errors.New("lines below the level")
			}
			return nil
		}},
		{name: "shape of the log", after: checkLogShape},
		{name: "the lines that tools wait for", after: func(r *running) error {
			var missing []string
			for _, text := range []string{
				`"msg":"Running: "`, `"msg":"starting an etcd server"`, `"msg":"starting local member"`, `"logger":"raft"`, " became candidate at term ",
				" became leader at term ", "raft.node: ", " elected leader ", `"msg":"added member"`, `"msg":"set initial cluster version"`,
				`"msg":"enabled capabilities for version"`, `"msg":"published local member to cluster through raft"`,
				`"msg":"ready to serve client requests"`, `"msg":"serving client traffic insecurely; this is strongly discouraged!"`,
				`"traffic":"grpc+http"`, `"msg":"received signal; shutting down"`, `"signal":"terminated"`,
				`"msg":"closing etcd server"`, `"msg":"closed etcd server"`,
			} {
				if !strings.Contains(r.p.Stderr(), text) {
					missing = append(missing, text)
				}
			}
			if len(missing) > 0 {
				return fmt.Errorf("missing in the log: %q", missing)
			}
			return nil
		}},
		{name: "init daemon", env: []string{"NOTIFY_SOCKET={dir}/notify"}, before: listenNotify, check: func(r *running) error {
			buf := make([]byte, 4096)
			if err := r.notify.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
				return err
			}
			n, err := r.notify.Read(buf)
			if err == nil && !strings.Contains(string(buf[:n]), "READY=1") {
				err = fmt.Errorf("it said %q", buf[:n])
			}
			return err
		}},
		{name: "ports shared", args: []string{"--socket-reuse-port=true"}, check: func(r *running) error {
			return sharePort(r.values["{c}"])
		}},
		{name: "ports not shared", etcdOnly: "each core of ours has a listener of its own on the same port", check: func(r *running) error {
			if err := sharePort(r.values["{c}"]); !errors.Is(err, syscall.EADDRINUSE) {
				return fmt.Errorf("a second listener: %v", err)
			}
			return nil
		}},
		{name: "name and addresses", args: []string{"--advertise-client-urls=http://a.example:1,http://{c}"}, check: func(r *running) error {
			return until(func() error {
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				defer cancel()
				list, err := pb.NewClusterClient(r.conn).MemberList(ctx, &pb.MemberListRequest{})
				if err != nil {
					return err
				}
				own := list.Members[0]
				if got := r.mask(fmt.Sprint(own.Name, own.ClientURLs, own.PeerURLs)); got != "m1[http://{c} http://a.example:1] [http://{p}]" {
					return errors.New(got)
				}
				return nil
			})
		}},
		{name: "origins", args: []string{"--cors=http://a.example:80"}, check: func(r *running) error {
			return errors.Join(checkOrigin(r, "http://a.example:80", "http://a.example:80"), checkOrigin(r, "http://b.example:80", ""))
		}},
		{name: "host names", args: []string{"--host-whitelist=good.example,127.0.0.1"}, check: func(r *running) error {
			return errors.Join(checkHost(r, "good.example", 200), checkHost(r, "bad.example", 421))
		}},
		{name: "pings too often", args: []string{"--grpc-keepalive-min-time=1h"}, check: func(r *running) error { return checkPings(r, true, true) }},
		{name: "pings without a call", args: []string{"--grpc-keepalive-min-time=1ns"}, check: func(r *running) error { return checkPings(r, false, true) }},
		{name: "pings without a rule of our own", args: []string{"--grpc-keepalive-min-time=0"}, check: func(r *running) error { return checkPings(r, true, true) }},
		{name: "pings as often as one likes", args: []string{"--grpc-keepalive-min-time=1ns"}, check: func(r *running) error { return checkPings(r, true, false) }},
		{name: "server pings", args: []string{"--grpc-keepalive-interval=1s", "--grpc-keepalive-timeout=1s"}, check: checkServerPings},
	}
}

func (r *running) page(path string, code int, part string) error {
	got, body, err := r.get(path)
	if err != nil {
		return err
	}
	if got != code || !strings.Contains(body, part) {
		return fmt.Errorf("%s: %d %.200s", path, got, body)
	}
	return nil
}

// awaitLog waits for a line that holds all the parts.
func (r *running) awaitLog(parts ...string) error {
	return until(func() error {
	lines:
		for _, line := range strings.Split(r.p.Stderr(), "\n") {
			for _, part := range parts {
				if !strings.Contains(line, part) {
					continue lines
				}
			}
			return nil
		}
		return fmt.Errorf("no line of the log has %q", parts)
	})
}

// framer opens HTTP/2 on the client port without any library in between.
func (r *running) framer() (*http2.Framer, net.Conn, error) {
	conn, err := net.DialTimeout("tcp", r.values["{c}"], 10*time.Second)
	if err != nil {
		return nil, nil, err
	}
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return nil, nil, err
	}
	f := http2.NewFramer(conn, conn)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return nil, nil, err
	}
	return f, conn, f.WriteSettings()
}

func checkStreams(r *running) error {
	f, conn, err := r.framer()
	if err != nil {
		return err
	}
	defer conn.Close()
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return err
		}
		settings, is := frame.(*http2.SettingsFrame)
		if !is || settings.IsAck() {
			continue
		}
		if most, _ := settings.Value(http2.SettingMaxConcurrentStreams); most != 7 {
			return fmt.Errorf("the server announces %d streams", most)
		}
		return nil
	}
}

// checkPings sends many pings, with or without an open call: the server must
// say that this is too much, or must go on answering.
func checkPings(r *running, call, refused bool) error {
	f, conn, err := r.framer()
	if err != nil {
		return err
	}
	defer conn.Close()
	if call {
		var block bytes.Buffer
		encoder := hpack.NewEncoder(&block)
		for _, field := range [][2]string{
			{":method", "POST"}, {":scheme", "http"}, {":path", "/etcdserverpb.Watch/Watch"}, {":authority", "localhost"},
			{"content-type", "application/grpc"}, {"te", "trailers"},
		} {
			if err := encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}); err != nil {
				return err
			}
		}
		if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}); err != nil {
			return err
		}
	}
	const pings = 20
	for i := range pings {
		if err := f.WritePing(false, [8]byte{byte(i)}); err != nil {
			break // it may have hung up
		}
	}
	acks := 0
	for acks < pings {
		frame, err := f.ReadFrame()
		if err != nil {
			return fmt.Errorf("after %d answers: %w", acks, err)
		}
		switch frame := frame.(type) {
		case *http2.PingFrame:
			if frame.IsAck() {
				acks++
			}
		case *http2.GoAwayFrame:
			if refused && frame.ErrCode == http2.ErrCodeEnhanceYourCalm && string(frame.DebugData()) == "too_many_pings" {
				return nil
			}
			return fmt.Errorf("the server ends the connection: %s %q", frame.ErrCode, frame.DebugData())
		}
	}
	if refused {
		return fmt.Errorf("%d pings were answered", acks)
	}
	return nil
}

// checkServerPings never answers a ping: the server must give the connection up.
func checkServerPings(r *running) error {
	f, conn, err := r.framer()
	if err != nil {
		return err
	}
	defer conn.Close()
	pinged := false
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			if pinged && !errors.Is(err, os.ErrDeadlineExceeded) {
				return nil
			}
			return fmt.Errorf("pinged: %t; then %w", pinged, err)
		}
		if ping, is := frame.(*http2.PingFrame); is && !ping.IsAck() {
			pinged = true
		}
	}
}

func checkProgress(r *running) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	stream, err := pb.NewWatchClient(r.conn).Watch(ctx)
	if err != nil {
		return err
	}
	create := &pb.WatchCreateRequest{Key: []byte("nothing"), ProgressNotify: true}
	if err := stream.Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
		return err
	}
	for progress := 0; progress < 2; {
		resp, err := stream.Recv()
		if err != nil {
			return err
		}
		if !resp.Created && len(resp.Events) == 0 {
			progress++
		}
	}
	return nil
}

// checkRotation makes the log grow beyond its size: an older file must appear
// beside it.
func checkRotation(r *running) error {
	return until(func() error {
		var together sync.WaitGroup
		for i := range 16 {
			together.Go(func() {
				for range 20 {
					_ = r.put(strings.Repeat("k", 3000)+fmt.Sprint(i), 10) // only the log lines matter
				}
			})
		}
		together.Wait()
		if found, _ := filepath.Glob(r.dir + "/a-*.log"); len(found) == 0 {
			return errors.New("no older log file")
		}
		return nil
	})
}

var stamp = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$`)

// checkLogShape: one object per line, the usual keys first and in order.
func checkLogShape(r *running) error {
	order := regexp.MustCompile(`^\{"level":"(debug|info|warn|error)","ts":"([^"]+)",("logger":"[^"]+",)?"caller":"[^"]+:\d+","msg":`)
	for _, line := range strings.Split(strings.TrimSpace(r.p.Stderr()), "\n") {
		found := order.FindStringSubmatch(line)
		if found == nil || !stamp.MatchString(found[2]) || !json.Valid([]byte(line)) {
			return fmt.Errorf("a line of another shape: %s", line)
		}
	}
	return nil
}

func listenNotify(t *testing.T, s *side) error {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.dir + "/notify", Net: "unixgram"})
	if err != nil {
		return err
	}
	t.Cleanup(func() { conn.Close() })
	notifySockets.Store(s.dir, conn)
	return nil
}

// notifySockets holds what listenNotify opened, by the side's folder.
var notifySockets sync.Map

// sharePort listens on an address that is in use, as SO_REUSEPORT allows when
// both sides ask for it.
func sharePort(addr string) error {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		return errors.Join(err, failed)
	}}
	l, err := config.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return err
	}
	return l.Close()
}

func request(r *running, change func(*http.Request)) (*http.Response, error) {
	req, err := http.NewRequest("GET", r.fill("http://{c}/version"), nil)
	if err != nil {
		return nil, err
	}
	req.Close = true
	change(req)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err == nil {
		resp.Body.Close()
	}
	return resp, err
}

func checkOrigin(r *running, origin, allowed string) error {
	resp, err := request(r, func(req *http.Request) { req.Header.Set("Origin", origin) })
	if err != nil {
		return err
	}
	if got := resp.Header.Get("Access-Control-Allow-Origin"); got != allowed || resp.StatusCode != 200 {
		return fmt.Errorf("origin %s: %d, allowed %q", origin, resp.StatusCode, got)
	}
	return nil
}

func checkHost(r *running, host string, code int) error {
	resp, err := request(r, func(req *http.Request) { req.Host = host })
	if err != nil {
		return err
	}
	if resp.StatusCode != code {
		return fmt.Errorf("host %s: %d", host, resp.StatusCode)
	}
	return nil
}

// TestEffects shows of each flag that it works, on both servers.
func TestEffects(t *testing.T) {
	sh := prepareShared(t)
	all := effects()
	for _, e := range all {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			bins := []harness.Binary{harness.Reference(t)}
			if e.etcdOnly == "" {
				bins = append(bins, harness.Subject(t))
			}
			for _, bin := range bins {
				if err := e.try(t, bin, sh); err != nil {
					t.Errorf("%s with %q: %v", bin.Name, e.args, err)
				}
			}
		})
	}
	t.Logf("%d effects looked for", len(all))
}

func (e effect) try(t *testing.T, bin harness.Binary, sh *shared) error {
	for attempt := 0; ; attempt++ {
		busy, err := e.tryOnce(t, bin, sh)
		if busy && attempt < 5 {
			continue // another process took the port in between
		}
		return err
	}
}

func (e effect) tryOnce(t *testing.T, bin harness.Binary, sh *shared) (busy bool, err error) {
	s := newSide(t, bin, sh)
	if e.before != nil {
		if err := e.before(t, s); err != nil {
			return false, err
		}
	}
	p := harness.Launch(t, bin, s.dir, s.fillAll(append(base(), e.args...)), s.fillAll(e.env))
	defer p.Kill()
	if err := (start{}).ready(p, s, sh); err != nil {
		return strings.Contains(p.Stderr(), "address already in use"), err
	}
	conn, err := grpc.NewClient(s.values["{c}"], grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return false, err
	}
	defer conn.Close()
	r := &running{side: s, p: p, conn: conn}
	if socket, opened := notifySockets.Load(s.dir); opened {
		r.notify = socket.(*net.UnixConn)
	}
	if e.check != nil {
		if err := e.check(r); err != nil {
			return false, err
		}
	}
	if e.after == nil {
		return false, nil
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return false, err
	}
	if _, err := p.End(endWithin); err != nil {
		return false, err
	}
	return false, e.after(r)
}
