package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// Bounds of waiting. They are generous because the machine may be busy with
// other builds; a healthy server is ready in a small part of them.
const (
	readyWithin = 60 * time.Second
	stopWithin  = 30 * time.Second
	pollEvery   = 5 * time.Millisecond
)

// Options says how a server is started. The zero value is a fresh member in a
// temporary directory with durable writes.
type Options struct {
	// Dir is the data directory; empty means a new temporary one.
	Dir string
	// NoSync adds --unsafe-no-fsync, for suites that never cut the power.
	NoSync bool
	// Args are further flags, each as --name=value.
	Args []string
	// Env are further variables, each as NAME=value.
	Env []string
	// AdvertisePeerURL replaces the advertised peer URL. Two servers that
	// advertise the same one must come to the same ids.
	AdvertisePeerURL string
}

// Server is one running (or killed) server process and its addresses, which
// stay the same over restarts.
type Server struct {
	Binary    Binary
	Dir       string
	ClientURL string
	PeerURL   string

	opts   Options
	logs   string
	cmd    *exec.Cmd
	exited chan struct{}
}

// Start runs bin and returns once it has answered a linearizable read. The
// process is killed and its directories are removed when the test ends.
func Start(t testing.TB, bin Binary, opts Options) *Server {
	t.Helper()
	s := Prepare(t, bin, opts)
	if err := s.Run(); err != nil {
		t.Fatalf("%s did not start: %v", bin.Name, err)
	}
	return s
}

// Prepare picks addresses and directories without starting anything.
func Prepare(t testing.TB, bin Binary, opts Options) *Server {
	t.Helper()
	if opts.Dir == "" {
		opts.Dir = filepath.Join(t.TempDir(), "data")
	}
	s := &Server{
		Binary:    bin,
		Dir:       opts.Dir,
		ClientURL: "http://" + freeAddr(t),
		PeerURL:   "http://" + freeAddr(t),
		opts:      opts,
		logs:      filepath.Join(t.TempDir(), bin.Name+".log"),
	}
	t.Cleanup(func() {
		s.Kill()
		if t.Failed() {
			t.Logf("last lines of %s's log:\n%s", bin.Name, s.LogTail(8))
		}
	})
	return s
}

// freeAddr is a loopback port that is the test process's own.
func freeAddr(t testing.TB) string {
	t.Helper()
	addr, err := Reserve()
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// Command is the command line that Run would start.
func (s *Server) Command() []string {
	advertise := s.PeerURL
	if s.opts.AdvertisePeerURL != "" {
		advertise = s.opts.AdvertisePeerURL
	}
	args := []string{
		s.Binary.Path,
		"--name=m1",
		"--data-dir=" + s.Dir,
		"--listen-client-urls=" + s.ClientURL,
		"--advertise-client-urls=" + s.ClientURL,
		"--listen-peer-urls=" + s.PeerURL,
		"--initial-advertise-peer-urls=" + advertise,
		"--initial-cluster=m1=" + advertise,
		"--log-level=info",
	}
	if s.opts.NoSync {
		args = append(args, "--unsafe-no-fsync=true")
	}
	return append(args, s.opts.Args...)
}

// Run starts the process and waits until it answers. A port lost to another
// process between choosing and binding is tried again a few times.
func (s *Server) Run() error {
	for attempt := 0; ; attempt++ {
		if err := s.Spawn(); err != nil {
			return err
		}
		err := s.WaitReady()
		if err == nil {
			return nil
		}
		s.Kill()
		if attempt == 5 || !strings.Contains(s.LogTail(20), "address already in use") {
			return err
		}
	}
}

// Spawn starts the process and does not wait for anything.
func (s *Server) Spawn() error {
	logFile, err := os.OpenFile(s.logs, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer logFile.Close()
	argv := s.Command()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(cleanEnv(), s.opts.Env...)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.Dir = filepath.Dir(s.logs)
	// A test process that dies takes its servers along.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.cmd, s.exited = cmd, make(chan struct{})
	go func(exited chan struct{}) {
		_ = cmd.Wait() // the exit code is read from cmd.ProcessState
		close(exited)
	}(s.exited)
	return nil
}

// cleanEnv is the environment without variables that configure a server.
func cleanEnv() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "ETCD_") && !strings.HasPrefix(v, "ETCDCTL_") {
			env = append(env, v)
		}
	}
	return env
}

// Exited is closed once the process has ended.
func (s *Server) Exited() <-chan struct{} { return s.exited }

// PID is the process id of the last started process.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// ExitCode waits for the end of the process and returns its exit code, or -1
// when a signal ended it.
func (s *Server) ExitCode(within time.Duration) (int, error) {
	select {
	case <-s.exited:
		return s.cmd.ProcessState.ExitCode(), nil
	case <-time.After(within):
		return 0, fmt.Errorf("%s still runs after %s", s.Binary.Name, within)
	}
}

// Kill ends the process as kill -9 does. It is harmless on a dead one.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill() // an error means that it has already ended
	<-s.exited
}

// Terminate sends SIGTERM and returns the exit code (-1: ended by the signal).
func (s *Server) Terminate() (int, error) {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return 0, err
	}
	return s.ExitCode(stopWithin)
}

// Dial opens one gRPC connection that never hides an error behind a retry.
func (s *Server) Dial(opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	opts = append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDisableRetry(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<31-1), grpc.MaxCallSendMsgSize(1<<31-1)),
	}, opts...)
	return grpc.NewClient(strings.TrimPrefix(s.ClientURL, "http://"), opts...)
}

// Conn is Dial for tests; the connection is closed when the test ends.
func (s *Server) Conn(t testing.TB, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	conn, err := s.Dial(opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// WaitReady returns once the server has answered a linearizable read and has
// settled its cluster version; both are asked again every few milliseconds.
func (s *Server) WaitReady() error {
	deadline := time.Now().Add(readyWithin)
	var last error
	for time.Now().Before(deadline) {
		if last = s.probe(); last == nil {
			return nil
		}
		select {
		case <-s.exited:
			return fmt.Errorf("it ended with code %d; last lines of its log:\n%s",
				s.cmd.ProcessState.ExitCode(), s.LogTail(10))
		case <-time.After(pollEvery):
		}
	}
	return fmt.Errorf("no answer within %s: %w", readyWithin, last)
}

func (s *Server) probe() error {
	addr := strings.TrimPrefix(s.ClientURL, "http://")
	tcp, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	tcp.Close()
	conn, err := s.Dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if _, err := pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte{0}}); err != nil {
		return err
	}
	body, err := s.HTTPGet(ctx, "/version")
	if err != nil {
		return err
	}
	if bytes.Contains(body, []byte("not_decided")) || bytes.Contains(body, []byte("unknown")) {
		return errors.New("cluster version not settled")
	}
	status, err := pb.NewMaintenanceClient(conn).Status(ctx, &pb.StatusRequest{})
	if err != nil {
		return err
	}
	// etcd names 3.5.0 as long as its file has no version of its own: its monitor
	// gives it one a moment after the cluster has agreed on its version.
	if status.StorageVersion == "" || status.StorageVersion == "3.5.0" {
		return errors.New("storage version not settled")
	}
	return nil
}

// HTTPGet fetches a path of the client port and returns the body, whatever
// the status is.
func (s *Server) HTTPGet(ctx context.Context, path string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.ClientURL+path, nil)
	if err != nil {
		return nil, err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// Log returns everything the process has printed.
func (s *Server) Log() string {
	text, err := os.ReadFile(s.logs)
	if err != nil {
		return ""
	}
	return string(text)
}

// LogTail returns the last lines the process has printed.
func (s *Server) LogTail(lines int) string {
	all := strings.Split(strings.TrimRight(s.Log(), "\n"), "\n")
	all = all[max(0, len(all)-lines):]
	for i, line := range all {
		if len(line) > 400 {
			all[i] = line[:400] + "…"
		}
	}
	return strings.Join(all, "\n")
}
