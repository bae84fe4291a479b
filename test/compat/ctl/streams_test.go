package ctl

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// ends is a command for `watch` that ends its parent at the value "last".
var ends = []string{"--", "sh", "-c", `if [ "$ETCD_WATCH_VALUE" = '"last"' ]; then kill -TERM $PPID; fi`}

func TestWatches(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.do("put", "a", "1")                         // revision 2
	s.do("put", "a", "2")                         // 3
	s.do("put", "b", "a \"quoted\"\nvalue\t\x01") // 4
	s.do("del", "a")                              // 5
	s.do("put", "z", "last")                      // 6
	s.all(append([]string{"watch", "", "--prefix", "--rev", "2"}, ends...)...)
	s.all(append([]string{"watch", "a", "zz", "--rev", "3", "--prev-kv"}, ends...)...)
	told := `echo $ETCD_WATCH_REVISION $ETCD_WATCH_EVENT_TYPE $ETCD_WATCH_KEY "$ETCD_WATCH_VALUE"; ` + ends[3]
	s.do("watch", "--prefix", "", "--rev", "2", "--", "sh", "-c", told)
	s.with("ETCDCTL_WATCH_KEY=a", "ETCDCTL_WATCH_RANGE_END=zz").do(append([]string{"watch", "--rev", "2"}, ends...)...)
	s.do("watch", "a", "--rev", "2", "--", "sh", "-c", "exit 3")
	s.do("watch", "a", "--rev", "2", "--", "absent-program", "an argument")
	s.do("watch", "a", "--rev", "2", "--", "./absent-program")

	s.do("watch")
	s.do("watch", "--prefix")
	s.do("watch", "a", "--")
	s.do("watch", "a", "b", "--prefix")
	s.do("watch", "a", "--rev", "x")
	s.do("watch", "a", "-w", "xml")
	s.with("ETCDCTL_WATCH_KEY=a").do("watch", "a")
	s.with("ETCDCTL_WATCH_KEY=a").do("watch", "a", "--", "echo")
	s.with("ETCDCTL_WATCH_RANGE_END=a").do("watch")
	s.all("watch", "b", "a") // an empty range
	s.do("compaction", "5")
	s.all("watch", "a", "--rev", "3")

	s.stdin("watch a --\n").do("watch", "-i")
	s.stdin("watch --nonsense\n").do("watch", "-i")
	s.stdin("nonsense\n\nwatch\nwatch a b --prefix\n").do("watch", "-i")
	s.stdin("watch z").do("watch", "-i")
	s.stdin("watch 'z").do("watch", "--interactive")
	s.end(55)
}

func TestLocksAndLeases(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.do("lock")
	s.do("lock", "L", "--", "sh", "-c", `echo "${ETCD_LOCK_KEY%/*} $ETCD_LOCK_REV"; echo told >&2; exit 7`)
	s.do("lock", "L", "echo", "held")
	s.do("lock", "L", "--", "sh", "-c", "kill -9 $$")
	s.do("lock", "L", "absent-program")
	s.do("lock", "L", "--ttl", "x")
	s.do("get", "L", "--prefix")
	s.stopped(syscall.SIGINT, 2, "lock", "L")
	s.stopped(syscall.SIGTERM, 1, "-w", "json", "lock", "a lock", "--ttl=30")
	s.do("get", "", "--prefix")

	s.do("elect")
	s.do("elect", "E")
	s.do("elect", "E", "p", "-l")
	s.do("elect", "a", "b", "c")
	s.stopped(syscall.SIGTERM, 2, "elect", "E", "proposal")
	s.stopped(syscall.SIGINT, 1, "-w", "json", "elect", "E", "proposal")
	s.do("get", "", "--prefix")

	s.grants("lease", "grant", "30")
	for _, format := range formats {
		s.do(append(append([]string{}, format...), "lease", "keep-alive", "--once", "$LEASE1")...)
	}
	s.stopped(syscall.SIGINT, 1, "lease", "keep-alive", "$LEASE1")
	s.do("lease", "revoke", "$LEASE1")
	s.do("lease", "keep-alive", "--once", "$LEASE1")
	s.do("lease", "keep-alive", "$LEASE1")
	s.do("-w", "json", "lease", "keep-alive", "$LEASE1")
	s.do("lease", "keep-alive")
	s.do("lease", "keep-alive", "no hex")
	s.end(30)
}

// A key below a lock's or an election's name is named for its lease; the same
// in JSON, where it is base64 of something as long.
var (
	leaseInKey    = regexp.MustCompile(`/[0-9a-f]{8,16}\b`)
	keyInJSON     = regexp.MustCompile(`"key":"[^"]*"`)
	leaseInAnswer = regexp.MustCompile(`"lease":\d+`)
)

// stopped runs a line that goes on for ever, signals it once it has printed
// so many lines, and compares.
func (s *script) stopped(signal os.Signal, lines int, args ...string) {
	s.t.Helper()
	results := make([]result, len(s.pairs))
	var wg sync.WaitGroup
	for i, p := range s.pairs {
		wg.Go(func() { results[i] = p.stopped(s.t, signal, lines, args) })
	}
	wg.Wait()
	s.count[kind(args)]++
	for i, p := range s.pairs {
		if results[i] != results[0] {
			s.t.Errorf("etcdctl %q, then %v, %s:\n%s", args, signal, p.name, difference(results[0], results[i]))
		}
	}
}

func (p *pair) stopped(t *testing.T, signal os.Signal, lines int, args []string) result {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	argv := append(append([]string{}, p.tool...), "--endpoints="+p.endpoint())
	for _, arg := range args {
		argv = append(argv, p.expand(arg))
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = p.dir, environment()
	var errs bytes.Buffer
	cmd.Stderr = &errs
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Error(err)
		return result{}
	}
	var out strings.Builder
	for scanner := bufio.NewScanner(stdout); scanner.Scan(); {
		out.WriteString(scanner.Text() + "\n")
		if lines--; lines == 0 {
			_ = cmd.Process.Signal(signal)
		}
	}
	_ = cmd.Wait() // its exit code says it
	r := p.normal(step{args: args}, result{out.String(), errs.String(), cmd.ProcessState.ExitCode()})
	r.out = leaseInKey.ReplaceAllString(r.out, "/LEASE")
	r.out = keyInJSON.ReplaceAllString(r.out, `"key":K`)
	r.out = leaseInAnswer.ReplaceAllString(r.out, `"lease":L`)
	return r
}
