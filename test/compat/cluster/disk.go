package cluster

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Disk is a file system of a small size that one member has its data on. It
// lives in a mount namespace that a process of its own keeps, so that it
// outlives the member and nobody else sees it.
type Disk struct {
	holder *exec.Cmd
	in     io.WriteCloser
	path   string // as seen from outside, through the holder
}

// SmallDisk gives a member that has not been started a disk of so many bytes.
//
// It needs the right to mount: root's, or that of a user namespace.
func (c *Cluster) SmallDisk(m *Member, bytes int) (*Disk, error) {
	mount := filepath.Join(m.home, "disk")
	if err := os.MkdirAll(mount, 0o755); err != nil {
		return nil, err
	}
	enter := []string{"--mount"}
	unshare := []string{"unshare", "--mount"}
	if os.Geteuid() != 0 {
		unshare = append(unshare, "--user", "--map-root-user")
		enter = append(enter, "--user", "--preserve-credentials")
	}
	script := fmt.Sprintf("mount -t tmpfs -o size=%d tmpfs '%s' && echo mounted && read -r _", bytes, mount)
	holder := exec.Command(unshare[0], append(unshare[1:], "sh", "-c", script)...)
	holder.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := holder.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := holder.StdoutPipe()
	if err != nil {
		return nil, err
	}
	var said strings.Builder
	holder.Stderr = &said
	if err := holder.Start(); err != nil {
		return nil, fmt.Errorf("a small disk needs the program unshare of util-linux: %w", err)
	}
	first := make([]byte, len("mounted\n"))
	if _, err := io.ReadFull(out, first); err != nil {
		_ = holder.Wait() // its complaint is in said
		return nil, fmt.Errorf("a small disk needs the right to mount (root, or user namespaces): %s", strings.TrimSpace(said.String()))
	}
	// unshare without --fork becomes the shell itself.
	pid := strconv.Itoa(holder.Process.Pid)
	m.wrap = append([]string{"nsenter", "--target", pid}, append(enter, "--")...)
	m.Dir = filepath.Join(mount, "data")
	return &Disk{holder: holder, in: in, path: filepath.Join("/proc", pid, "root", mount)}, nil
}

// Outside is the disk's path for the test's own process.
func (d *Disk) Outside() string { return d.path }

// Fill writes a file until nothing is left.
func (d *Disk) Fill() error {
	f, err := os.Create(filepath.Join(d.path, "filler"))
	if err != nil {
		return err
	}
	defer f.Close()
	for size := 1 << 20; size >= 512; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	return nil
}

// Empty takes the filler away.
func (d *Disk) Empty() error { return os.Remove(filepath.Join(d.path, "filler")) }

// Close lets the namespace go, and the disk with it.
func (d *Disk) Close() {
	d.in.Close()
	_ = d.holder.Wait() // it was asked to end
}

// Spoil lets a running member's syncs of its disk come late or fail, until the
// returned function is called. how is strace's: delay_enter=… in microseconds,
// or error=EIO.
//
// It needs strace, and the right to trace the process (root, or
// kernel.yama.ptrace_scope=0).
func (m *Member) Spoil(how string) (func() error, error) {
	pid := m.PID()
	if pid == 0 {
		return nil, fmt.Errorf("%s does not run", m)
	}
	const syncs = "fsync,fdatasync"
	record := filepath.Join(m.home, "syncs")
	tracer := exec.Command("strace", "--follow-forks", "--attach="+strconv.Itoa(pid), "--trace="+syncs,
		"--inject="+syncs+":"+how, "--output="+record)
	tracer.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := tracer.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := tracer.Start(); err != nil {
		return nil, fmt.Errorf("spoiling a disk needs the program strace: %w", err)
	}
	// It tells of the first thread once it has all that were there.
	lines := bufio.NewReader(out)
	said, err := lines.ReadString('\n')
	if err != nil || !strings.Contains(said, "attached") {
		rest, _ := io.ReadAll(lines) // it ends
		_ = tracer.Wait()
		return nil, fmt.Errorf("strace cannot trace %s (root can): %s%s", m, said, rest)
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = io.Copy(io.Discard, lines)
	}()
	return func() error {
		_ = tracer.Process.Signal(syscall.SIGTERM) // it has ended with a member that ended
		<-drained
		_ = tracer.Wait() // ends by the signal that it was sent
		text, err := os.ReadFile(record)
		if err == nil && !strings.Contains(string(text), "sync(") {
			err = fmt.Errorf("%s synced nothing: nothing was spoiled", m)
		}
		return err
	}, nil
}
