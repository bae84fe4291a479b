package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"milepost.dev/test/compat/harness"
)

// Member is one server process, running or not, and its addresses, which stay
// the same over restarts.
type Member struct {
	Number    int
	Name      string
	Binary    harness.Binary
	Dir       string // the data directory
	ClientURL string
	PeerURL   string // what it advertises: its door

	cluster *Cluster
	home    string   // the folder of its files
	args    []string // of its own
	start   []string // --initial-cluster and its state, as of its first start
	wrap    []string // a command that runs it, for a namespace

	mu     sync.Mutex
	cmd    *exec.Cmd
	exited chan struct{}
	starts int
}

func (m *Member) String() string { return fmt.Sprintf("%s (%s)", m.Name, m.Binary.Name) }

// Args adds flags, each as --name=value, to what it is started with from now on.
func (m *Member) Args(args ...string) { m.args = append(m.args, args...) }

var errRunning = errors.New("is already running")

// back starts it unless somebody else, who changes members meanwhile, has.
func (m *Member) back() error {
	if err := m.Start(); !errors.Is(err, errRunning) {
		return err
	}
	return nil
}

// Start runs the process; it does not wait for anything.
func (m *Member) Start() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cmd != nil {
		select {
		case <-m.exited:
		default:
			return fmt.Errorf("%s %w", m, errRunning)
		}
	}
	listen, err := harness.Reserve()
	if err != nil {
		return err
	}
	argv := slices.Concat(m.wrap, []string{
		m.Binary.Path,
		"--name=" + m.Name,
		"--data-dir=" + m.Dir,
		"--listen-client-urls=" + m.ClientURL,
		"--advertise-client-urls=" + m.ClientURL,
		"--listen-peer-urls=" + m.cluster.peerScheme() + listen,
		"--initial-advertise-peer-urls=" + m.PeerURL,
	}, m.start, m.cluster.args, m.args)
	out, err := os.OpenFile(m.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = m.home
	cmd.Stdout, cmd.Stderr = out, out
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "ETCD_") && !strings.HasPrefix(v, "ETCDCTL_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	// A test process that dies takes its servers along.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	m.cluster.Net.Lead(m.Number, listen)
	if err := cmd.Start(); err != nil {
		return err
	}
	m.starts++
	exited := make(chan struct{})
	m.cmd, m.exited = cmd, exited
	go func() {
		_ = cmd.Wait() // how it ended is read from ProcessState
		close(exited)
	}()
	return nil
}

// Starts is how often it was started.
func (m *Member) Starts() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.starts
}

// PID is the process id, or 0 when it does not run.
func (m *Member) PID() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cmd == nil {
		return 0
	}
	select {
	case <-m.exited:
		return 0
	default:
		return m.cmd.Process.Pid
	}
}

// Running tells whether the process has not ended.
func (m *Member) Running() bool { return m.PID() != 0 }

// Kill ends it as kill -9 does and waits for its end. It is harmless on a dead one.
func (m *Member) Kill() {
	m.mu.Lock()
	cmd, exited := m.cmd, m.exited
	m.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Kill() // an error means that it has already ended
	<-exited
}

// Signal sends a signal; SIGSTOP and SIGCONT pause and resume it.
func (m *Member) Signal(sig syscall.Signal) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cmd == nil {
		return fmt.Errorf("%s was never started", m)
	}
	return m.cmd.Process.Signal(sig)
}

// Terminate sends SIGTERM and waits for the end.
func (m *Member) Terminate(within time.Duration) (string, error) {
	if err := m.Signal(syscall.SIGTERM); err != nil {
		return "", err
	}
	return m.End(within)
}

// End waits for the end and says how it came: "exit N" or "signal NAME".
func (m *Member) End(within time.Duration) (string, error) {
	m.mu.Lock()
	cmd, exited := m.cmd, m.exited
	m.mu.Unlock()
	if cmd == nil {
		return "", fmt.Errorf("%s was never started", m)
	}
	select {
	case <-exited:
	case <-time.After(within):
		return "", fmt.Errorf("%s still runs after %s", m, within)
	}
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return "signal " + status.Signal().String(), nil
	}
	return fmt.Sprintf("exit %d", status.ExitStatus()), nil
}

// Wipe removes its data. It must not run.
func (m *Member) Wipe() error {
	if m.Running() {
		return fmt.Errorf("%s runs: its data stays", m)
	}
	return os.RemoveAll(m.Dir)
}

func (m *Member) logFile() string { return filepath.Join(m.home, "log") }

// Log is everything it has printed.
func (m *Member) Log() string {
	text, err := os.ReadFile(m.logFile())
	if err != nil {
		return ""
	}
	return string(text)
}

// LogTail is the last lines it has printed.
func (m *Member) LogTail(lines int) string {
	all := strings.Split(strings.TrimRight(m.Log(), "\n"), "\n")
	all = all[max(0, len(all)-lines):]
	for i, line := range all {
		if len(line) > 500 {
			all[i] = line[:500] + "…"
		}
	}
	return strings.Join(all, "\n")
}

// Complaints are the texts of the warnings and worse that it has printed, each
// with how often and an example of the whole line.
func (m *Member) Complaints() string {
	counts, example := map[string]int{}, map[string]string{}
	for line := range strings.Lines(m.Log()) {
		var entry struct{ Level, Msg string }
		if json.Unmarshal([]byte(line), &entry) != nil {
			entry.Level, entry.Msg = "plain", line
		}
		if entry.Level != "info" && entry.Level != "debug" {
			counts[entry.Msg]++
			example[entry.Msg] = strings.TrimSpace(line)
		}
	}
	var out strings.Builder
	for _, msg := range slices.Sorted(maps.Keys(counts)) {
		fmt.Fprintf(&out, "%6d × %.500s\n", counts[msg], example[msg])
	}
	return out.String()
}

// Client is etcd's official client of this member alone.
func (m *Member) Client() (*clientv3.Client, error) { return newClient([]string{m.ClientURL}) }

func newClient(endpoints []string, opts ...grpc.DialOption) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints:            endpoints,
		DialTimeout:          3 * time.Second,
		DialKeepAliveTime:    2 * time.Second,
		DialKeepAliveTimeout: 2 * time.Second,
		DialOptions:          opts,
		Logger:               zap.NewNop(),
	})
}

// Conn is a bare connection that hides no error behind a retry.
func (m *Member) Conn() (*grpc.ClientConn, error) {
	return grpc.NewClient(strings.TrimPrefix(m.ClientURL, "http://"),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<31-1), grpc.MaxCallSendMsgSize(1<<31-1)))
}

// Status asks the member about itself.
func (m *Member) Status(ctx context.Context) (*pb.StatusResponse, error) {
	conn, err := m.Conn()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return pb.NewMaintenanceClient(conn).Status(ctx, &pb.StatusRequest{})
}

// pollEvery is how often another process is asked anew.
const pollEvery = 10 * time.Millisecond

// WaitReady returns once it has answered a linearizable read. A learner answers
// a serializable read.
func (m *Member) WaitReady(ctx context.Context) error {
	conn, err := m.Conn()
	if err != nil {
		return err
	}
	defer conn.Close()
	var last error
	for {
		err := ready(ctx, conn)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil { // else it is not the member's own
			last = err
		}
		if !m.Running() {
			how, _ := m.End(0)
			return fmt.Errorf("%s ended with %s; last lines of its log:\n%s", m, how, m.LogTail(10))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w; last lines of its log:\n%s", m, last, m.LogTail(10))
		case <-time.After(pollEvery):
		}
	}
}

func ready(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	status, err := pb.NewMaintenanceClient(conn).Status(ctx, &pb.StatusRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	if status.Leader == 0 {
		return errors.New("no leader")
	}
	_, err = pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte{0}, Serializable: status.IsLearner})
	return err
}
