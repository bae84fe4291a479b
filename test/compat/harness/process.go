package harness

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// Process is one program started with exactly the arguments and variables
// given: for tests of the command line itself, where Server would add its own.
type Process struct {
	// Name is how reports call it.
	Name string
	cmd  *exec.Cmd
	out  string
	err  string
	done chan struct{}
}

// Launch starts a program in the folder dir. The environment is the test's own
// without variables that configure a server or its client, then env. What the
// program prints is kept in files, so that no reader can slow it down. It is
// killed when the test ends.
func Launch(t testing.TB, bin Binary, dir string, args, env []string) *Process {
	t.Helper()
	return LaunchWithInput(t, bin, dir, args, env, nil)
}

// LaunchWithInput is Launch with a standard input.
func LaunchWithInput(t testing.TB, bin Binary, dir string, args, env []string, in io.Reader) *Process {
	t.Helper()
	prints := t.TempDir()
	p := &Process{
		Name: bin.Name,
		cmd:  exec.Command(bin.Path, args...),
		out:  filepath.Join(prints, "out"),
		err:  filepath.Join(prints, "err"),
		done: make(chan struct{}),
	}
	p.cmd.Stdin = in
	p.cmd.Dir = dir
	p.cmd.Env = append(cleanEnv(), env...)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	for _, sink := range []struct {
		path string
		to   *io.Writer
	}{{p.out, &p.cmd.Stdout}, {p.err, &p.cmd.Stderr}} {
		f, err := os.Create(sink.path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		*sink.to = f
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // read from ProcessState
		close(p.done)
	}()
	t.Cleanup(func() { p.Kill() })
	return p
}

// PID is the process id.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Exited is closed once the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.done }

// Kill ends the process as kill -9 does and waits for its end.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // an error means that it has already ended
	<-p.done
}

// Signal sends a signal.
func (p *Process) Signal(sig os.Signal) error { return p.cmd.Process.Signal(sig) }

// End waits for the end and says how it came: "exit N" or "signal NAME".
func (p *Process) End(within time.Duration) (string, error) {
	select {
	case <-p.done:
	case <-time.After(within):
		return "", fmt.Errorf("%s still runs after %s", p.Name, within)
	}
	status := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if status.Signaled() {
		return "signal " + status.Signal().String(), nil
	}
	return fmt.Sprintf("exit %d", status.ExitStatus()), nil
}

// Stdout is what it has printed on its standard output.
func (p *Process) Stdout() string { return printed(p.out) }

// Stderr is what it has printed on its standard error.
func (p *Process) Stderr() string { return printed(p.err) }

func printed(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(text)
}

// FreeAddr is a loopback port for a server that is started: see Reserve.
func FreeAddr(t testing.TB) string {
	t.Helper()
	return freeAddr(t)
}

// HoldAddr binds a loopback port until the test ends.
func HoldAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}
