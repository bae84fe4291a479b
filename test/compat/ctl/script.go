package ctl

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// step is one command line.
type step struct {
	args []string
	in   string
	env  []string
	// toolOnly: our server does not have this yet; only the tools are compared.
	toolOnly bool
	// elsewhere: the line says itself whom to ask, or asks nobody.
	elsewhere bool
	// squeezed: the widths of the table depend on what is masked.
	squeezed bool
	// page: the output is a help page.
	page bool
	// unordered: two threads of etcd's tool write its log lines.
	unordered bool
}

// script runs lines on all pairs and compares.
type script struct {
	t     *testing.T
	pairs []*pair
	next  step
	count map[string]int
}

func newScript(t *testing.T, args ...string) *script {
	t.Helper()
	return &script{t: t, pairs: newPairs(t, args...), count: map[string]int{}}
}

// These say something of the next line only.

func (s *script) stdin(text string) *script { s.next.in = text; return s }
func (s *script) with(env ...string) *script {
	s.next.env = append(s.next.env, env...)
	return s
}
func (s *script) tool() *script      { s.next.toolOnly = true; return s }
func (s *script) elsewhere() *script { s.next.elsewhere = true; return s }
func (s *script) squeezed() *script  { s.next.squeezed = true; return s }
func (s *script) unordered() *script { s.next.unordered = true; return s }
func (s *script) page() *script      { s.next.page = true; return s }

// formats of --write-out, and --hex with those that know it.
var formats = [][]string{
	{"-w", "simple"}, {"-w", "json"}, {"-w", "fields"}, {"-w", "table"}, {"-w", "protobuf"},
	{"--hex"}, {"--hex", "-w", "json"}, {"--hex", "-w", "fields"},
}

// all runs a line that changes nothing in every format.
func (s *script) all(args ...string) {
	s.t.Helper()
	now := s.next
	for _, format := range formats {
		s.next = now
		s.do(append(slices.Clone(format), args...)...)
	}
}

var granted = regexp.MustCompile(`lease ([0-9a-f]{16}) granted|"ID":(\d+),"TTL"|"ID" : (\d+)\n"TTL"|"ID" : ([0-9a-f]{16})\n"TTL"`)

// grants runs a line that makes a lease, and remembers its id for $LEASEn.
func (s *script) grants(args ...string) {
	s.t.Helper()
	s.compare(args, func(p *pair, r result) error {
		match := granted.FindStringSubmatch(r.out)
		if match == nil {
			return fmt.Errorf("no lease in %q", r.out)
		}
		base, text := 16, match[1]+match[4]
		if text == "" {
			base, text = 10, match[2]+match[3]
		}
		id, err := strconv.ParseInt(text, base, 64)
		p.leases = append(p.leases, id)
		return err
	})
}

var added = regexp.MustCompile(`Member +([0-9a-f]+) added|"member":\{"ID":(?:(\d+)|"([0-9a-f]+)")`)

// adds runs a line that adds a member, and remembers its id for $MEMBERn.
func (s *script) adds(args ...string) {
	s.t.Helper()
	s.compare(args, func(p *pair, r result) error {
		match := added.FindStringSubmatch(r.out)
		if match == nil {
			return fmt.Errorf("no member in %q, %q", r.out, r.errs)
		}
		base, text := 16, match[1]+match[3]
		if text == "" {
			base, text = 10, match[2]
		}
		id, err := strconv.ParseUint(text, base, 64)
		p.members = append(p.members, id)
		return err
	})
}

// do runs a line.
func (s *script) do(args ...string) {
	s.t.Helper()
	s.compare(args, func(*pair, result) error { return nil })
}

func (s *script) compare(args []string, learn func(*pair, result) error) {
	s.t.Helper()
	now := s.next
	s.next = step{}
	now.args = args
	pairs := s.pairs
	if now.toolOnly {
		pairs = pairs[:2]
	}
	results := make([]result, len(pairs))
	errs := make([]error, len(pairs))
	var wg sync.WaitGroup
	for i, p := range pairs {
		wg.Go(func() {
			results[i], errs[i] = p.run(now)
			if errs[i] == nil {
				errs[i] = learn(p, results[i])
			}
			results[i] = p.normal(now, results[i])
		})
	}
	wg.Wait()
	s.count[kind(args)]++
	for i, p := range pairs {
		if errs[i] != nil {
			s.t.Errorf("etcdctl %q, %s: %v", args, p.name, errs[i])
		} else if results[i] != results[0] {
			s.t.Errorf("etcdctl %q, %s:\n%s", args, p.name, difference(results[0], results[i]))
		}
	}
}

func difference(want, got result) string {
	var text strings.Builder
	if want.code != got.code {
		fmt.Fprintf(&text, "exit code %d, not %d\n", got.code, want.code)
	}
	part := func(name, want, got string) {
		if want != got {
			fmt.Fprintf(&text, "--- %s, etcd's\n%s\n--- %s, this one's\n%s\n", name, want, name, got)
		}
	}
	part("stdout", want.out, got.out)
	part("stderr", want.errs, got.errs)
	return text.String()
}

// kind is the command that a line calls, for the table of what was compared.
func kind(args []string) string {
	parents := []string{"alarm", "auth", "check", "downgrade", "endpoint", "lease", "member", "role", "snapshot", "user"}
	var words []string
	for i := 0; i < len(args); i++ {
		switch {
		case args[i] == "-w":
			i++
		case strings.HasPrefix(args[i], "-"):
		default:
			words = append(words, args[i])
		}
	}
	switch {
	case len(words) == 0:
		return "(none)"
	case len(words) > 1 && slices.Contains(parents, words[0]):
		return words[0] + " " + words[1]
	default:
		return words[0]
	}
}

var (
	totalLock sync.Mutex
	total     = map[string]int{}
)

// end adds what this script compared to the table that TestMain prints, and
// fails when it compared fewer lines than `least`.
func (s *script) end(least int) {
	s.t.Helper()
	sum := 0
	totalLock.Lock()
	defer totalLock.Unlock()
	for kind, count := range s.count {
		total[kind] += count
		sum += count
	}
	if sum < least {
		s.t.Errorf("only %d lines were compared, at least %d are wanted", sum, least)
	}
}
