// Package startup gives the same command lines, variables and files to etcd
// and to the server under test: what comes up must answer, what is refused
// must be refused with the same exit code and the same first message.
//
//	case ─► flags, env, files ─┬─► etcd ───► up | (exit code, message)
//	  with {c} {p} {dir} …     └─► subject ► up | (exit code, message)
//	                                          └─ masked, equal? ─► table
//
// The message is the plain line on stderr where there is one, else `msg` and
// `error` of the log line that says why. Ports and paths are masked. Where the
// two differ on purpose the case says so and gives the reason.
package startup

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"milepost.dev/test/compat/harness"
)

// Bounds of waiting, generous because the machine may be busy.
const (
	upWithin  = 60 * time.Second
	endWithin = 45 * time.Second
)

// start is one way to start a server. In args, env and files these stand for
// something of the side's own: {dir} its folder, {c} {c2} {h} {m} {p} free
// addresses, {cport} the port of {c}; and these for something shared: {busy}
// an address that is taken, {ca} {cert} {key} {ccert} {ckey} {key2} {crl}
// files with certificates, {junk} a file of no format.
type start struct {
	kind, name string
	// bare leaves out the flags that every other case gets (see base).
	bare  bool
	args  []string
	env   []string
	files map[string]string
	// prep is run in the side's folder before the start.
	prep func(dir string) error
	// up: etcd comes up and answers.
	up  bool
	ask ask
	// says must be printed by both.
	says []string
	// stop is the signal that ends a server that came up; SIGTERM otherwise.
	stop syscall.Signal
	// ours is what the subject does instead, on purpose.
	ours *ours
}

// ask says where a server that is up answers; the zero value is {c} without TLS.
type ask struct {
	// health is the root of the pages; "-" where no page is served.
	health string
	// grpc is the target of a put and a get; "-" where none can be.
	grpc string
	// tls is "" (none), "server" (its certificate is verified), "client" (we
	// show one too) or "any" (nothing is verified).
	tls string
}

// ours is a deliberate difference.
type ours struct {
	why string
	// up: the subject comes up; otherwise it ends as end says.
	up  bool
	end string
	// says must all be in its message (refused) or its output (up).
	says []string
}

// outcome is what became of a start.
type outcome struct {
	up  bool
	end string
	// message explains a refusal.
	message string
	// output is all that was printed, masked.
	output string
}

func (o outcome) String() string {
	if o.up {
		return "up, then " + o.end
	}
	return fmt.Sprintf("%s: %s", o.end, o.message)
}

func base() []string {
	return []string{
		"--name=m1", "--data-dir={dir}/data",
		"--listen-client-urls=http://{c}", "--advertise-client-urls=http://{c}",
		"--listen-peer-urls=http://{p}", "--initial-advertise-peer-urls=http://{p}",
		"--initial-cluster=m1=http://{p}", "--unsafe-no-fsync=true",
	}
}

// shared is what all cases of a run have in common.
type shared struct {
	values map[string]string
	ca     *harness.Authority
	client *tls.Config
	server *tls.Config
}

func prepareShared(t *testing.T) *shared {
	t.Helper()
	dir := t.TempDir()
	ca := harness.NewAuthority(t, dir, "ca")
	cert, key := ca.Issue(t, "server", harness.Leaf{CommonName: "server"})
	_, key2 := ca.Issue(t, "other", harness.Leaf{CommonName: "other"})
	ccert, ckey := ca.Issue(t, "client", harness.Leaf{CommonName: "client", Client: true})
	expired, expiredKey := ca.Issue(t, "expired", harness.Leaf{CommonName: "server", Expired: true})
	junk := filepath.Join(dir, "junk")
	if err := os.WriteFile(junk, []byte("neither PEM nor YAML: [{\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return &shared{
		values: map[string]string{
			"{busy}": harness.HoldAddr(t), "{ca}": ca.File, "{cert}": cert, "{key}": key, "{key2}": key2,
			"{ccert}": ccert, "{ckey}": ckey, "{crl}": ca.Revoke(t, "none"), "{junk}": junk,
			"{expired}": expired, "{expiredkey}": expiredKey,
		},
		ca:     ca,
		server: ca.ClientTLS(t, "", ""),
		client: ca.ClientTLS(t, ccert, ckey),
	}
}

// side is one run of one case.
type side struct {
	bin    harness.Binary
	values map[string]string
	dir    string
}

func newSide(t *testing.T, bin harness.Binary, s *shared) *side {
	t.Helper()
	// Short: the path of a unix socket has about a hundred bytes.
	dir, err := os.MkdirTemp("", "mp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	values := map[string]string{"{dir}": dir}
	for _, name := range []string{"{c}", "{c2}", "{h}", "{m}", "{p}"} {
		values[name] = harness.FreeAddr(t)
	}
	_, values["{cport}"], _ = net.SplitHostPort(values["{c}"])
	for name, value := range s.values {
		values[name] = value
	}
	return &side{bin: bin, values: values, dir: dir}
}

func (s *side) fill(text string) string {
	for name, value := range s.values {
		text = strings.ReplaceAll(text, name, value)
	}
	return text
}

func (s *side) fillAll(texts []string) []string {
	out := make([]string, len(texts))
	for i, text := range texts {
		out[i] = s.fill(text)
	}
	return out
}

// mask is the inverse of fill, longest value first.
func (s *side) mask(text string) string {
	names := make([]string, 0, len(s.values))
	for name := range s.values {
		names = append(names, name)
	}
	sort.Slice(names, func(i, j int) bool {
		a, b := s.values[names[i]], s.values[names[j]]
		return len(a) > len(b) || len(a) == len(b) && names[i] < names[j]
	})
	for _, name := range names {
		text = strings.ReplaceAll(text, s.values[name], name)
	}
	return text
}

// run starts one side of a case and sees it to its end.
func (c start) run(t *testing.T, bin harness.Binary, sh *shared, wantUp bool) (outcome, error) {
	t.Helper()
	for attempt := 0; ; attempt++ {
		got, err := c.runOnce(t, bin, sh, wantUp)
		// A port that another process took in between says nothing.
		if wantUp && attempt < 5 && strings.Contains(got.output, "address already in use") {
			continue
		}
		return got, err
	}
}

func (c start) runOnce(t *testing.T, bin harness.Binary, sh *shared, wantUp bool) (outcome, error) {
	t.Helper()
	s := newSide(t, bin, sh)
	for name, content := range c.files {
		if err := os.WriteFile(filepath.Join(s.dir, name), []byte(s.fill(content)), 0o600); err != nil {
			return outcome{}, err
		}
	}
	if c.prep != nil {
		if err := c.prep(s.dir); err != nil {
			return outcome{}, err
		}
	}
	args := c.args
	if !c.bare {
		args = append(base(), c.args...)
	}
	p := harness.Launch(t, bin, s.dir, s.fillAll(args), s.fillAll(c.env))
	defer p.Kill()
	if !wantUp {
		end, err := p.End(endWithin)
		out := outcome{end: end, message: s.mask(reason(p.Stdout(), p.Stderr())), output: s.mask(p.Stdout() + p.Stderr())}
		return out, err
	}
	if err := c.ready(p, s, sh); err != nil {
		return outcome{output: s.mask(p.Stdout() + p.Stderr())}, err
	}
	stop := c.stop
	if stop == 0 {
		stop = syscall.SIGTERM
	}
	if err := p.Signal(stop); err != nil {
		return outcome{}, err
	}
	end, err := p.End(endWithin)
	return outcome{up: true, end: end, output: s.mask(p.Stdout() + p.Stderr())}, err
}

// ready returns once the process has answered a put, a get and /health.
func (c start) ready(p *harness.Process, s *side, sh *shared) error {
	where := c.ask
	if where.grpc == "" {
		where.grpc = "{c}"
	}
	if where.health == "" {
		where.health = "http://{c}"
		if where.tls != "" {
			where.health = "https://{c}"
		}
	}
	config := map[string]*tls.Config{"server": sh.server, "client": sh.client, "any": {InsecureSkipVerify: true}}[where.tls]
	deadline := time.Now().Add(upWithin)
	for {
		err := use(s.fill(where.grpc), config)
		if err == nil {
			err = healthy(s.fill(where.health), config)
		}
		if err == nil && where.grpc == "-" && where.health == "-" {
			err = c.said(p)
		}
		if err == nil {
			return nil
		}
		select {
		case <-p.Exited():
			end, _ := p.End(0)
			return fmt.Errorf("it did not come up: %s: %s", end, s.mask(reason(p.Stdout(), p.Stderr())))
		case <-time.After(20 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not up within %s: %w", upWithin, err)
		}
	}
}

// said tells whether everything that must be printed has been.
func (c start) said(p *harness.Process) error {
	output := p.Stdout() + p.Stderr()
	for _, text := range c.says {
		if !strings.Contains(output, text) {
			return fmt.Errorf("it has not said %q", text)
		}
	}
	return nil
}

func use(target string, config *tls.Config) error {
	if target == "-" {
		return nil
	}
	creds := insecure.NewCredentials()
	if config != nil {
		creds = credentials.NewTLS(config)
	}
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(creds), grpc.WithAuthority("localhost"))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	kv := pb.NewKVClient(conn)
	if _, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("k"), Value: []byte("v")}); err != nil {
		return err
	}
	got, err := kv.Range(ctx, &pb.RangeRequest{Key: []byte("k")})
	if err != nil {
		return err
	}
	if len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "v" {
		return fmt.Errorf("what was put is not there: %v", got)
	}
	return nil
}

func healthy(root string, config *tls.Config) error {
	if root == "-" {
		return nil
	}
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	if path, unix := strings.CutPrefix(root, "unix:"); unix {
		root = "http://localhost"
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		}
	}
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	resp, err := client.Get(root + "/health")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != 200 || string(body) != `{"health":"true","reason":""}` {
		return fmt.Errorf("/health: %d %s", resp.StatusCode, body)
	}
	return nil
}

// reason is the message that explains an end: the first plain line on stderr;
// else, of the log, the last line of a level above info, with its error.
func reason(stdout, stderr string) string {
	found := ""
	for _, line := range strings.Split(stderr, "\n") {
		if strings.TrimSpace(line) == "" {
			continue
		}
		var entry struct{ Level, Msg, Error string }
		if !strings.HasPrefix(line, "{") || json.Unmarshal([]byte(line), &entry) != nil {
			return strings.TrimSpace(line)
		}
		switch entry.Level {
		case "warn", "error", "panic", "fatal", "dpanic":
			found = entry.Msg
			if entry.Error != "" {
				found += " | " + entry.Error
			}
		}
	}
	if found == "" {
		found, _, _ = strings.Cut(stdout, "\n")
	}
	return found
}

// Parts of messages that cannot be equal.
var unequal = []struct {
	what *regexp.Regexp
	with string
}{
	// The version line's values are each program's own.
	{regexp.MustCompile(`^(etcd Version): .*`), "$1"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "{addr}"},
	// How a program prints a message that it cannot log is its own.
	{regexp.MustCompile(`^panic: `), ""},
}

func canon(message string) string {
	for _, u := range unequal {
		message = u.what.ReplaceAllString(message, u.with)
	}
	return message
}

// sameMessage: ours may go on where etcd's message ends, and say what to do.
func sameMessage(ref, sub string) bool {
	more, begins := strings.CutPrefix(sub, ref)
	return begins && (more == "" || strings.ContainsAny(more[:1], ":;,.| ("))
}

// tally counts cases by kind: came up, and refused.
type tally struct {
	mu   sync.Mutex
	rows map[string][2]int
}

func (y *tally) add(kind string, up bool) {
	y.mu.Lock()
	defer y.mu.Unlock()
	row := y.rows[kind]
	if up {
		row[0]++
	} else {
		row[1]++
	}
	y.rows[kind] = row
}

// TestMatrix runs every case on both servers.
func TestMatrix(t *testing.T) {
	sh := prepareShared(t)
	reference, subject := harness.Reference(t), harness.Subject(t)
	same := harness.SubjectIsReference(t)
	counts := &tally{rows: map[string][2]int{}}
	seen := map[string]bool{}
	t.Run("cases", func(t *testing.T) {
		for _, c := range cases() {
			id := c.kind + "/" + c.name
			if seen[id] {
				t.Fatalf("two cases are called %s", id)
			}
			seen[id] = true
			t.Run(id, func(t *testing.T) {
				t.Parallel()
				c.check(t, sh, reference, subject, same)
				counts.add(c.kind, c.up)
			})
		}
	})
	var table bytes.Buffer
	kinds := make([]string, 0, len(counts.rows))
	total := 0
	for kind, row := range counts.rows {
		kinds = append(kinds, kind)
		total += row[0] + row[1]
	}
	sort.Strings(kinds)
	fmt.Fprintf(&table, "%-12s %5s %8s\n", "kind", "up", "refused")
	for _, kind := range kinds {
		fmt.Fprintf(&table, "%-12s %5d %8d\n", kind, counts.rows[kind][0], counts.rows[kind][1])
	}
	t.Logf("%d command lines compared\n%s", total, table.String())
	if t.Failed() {
		return
	}
	for kind, least := range floors {
		got, asked := counts.rows[kind]
		if asked && (got[0] < least[0] || got[1] < least[1]) {
			t.Errorf("%s: %d came up and %d were refused, wanted at least %d and %d", kind, got[0], got[1], least[0], least[1])
		}
	}
}

func (c start) check(t *testing.T, sh *shared, reference, subject harness.Binary, same bool) {
	var ref, sub outcome
	var refErr, subErr error
	wantUp := c.up
	if c.ours != nil && !same {
		wantUp = c.ours.up
	}
	// A free port may be taken by another case before the server asks for it: then one of the two complains of that
	// instead of what it was asked.
	for range 5 {
		var both sync.WaitGroup
		both.Go(func() { ref, refErr = c.run(t, reference, sh, c.up) })
		both.Go(func() { sub, subErr = c.run(t, subject, sh, wantUp) })
		both.Wait()
		const taken = "address already in use"
		if strings.Contains(ref.output, taken) == strings.Contains(sub.output, taken) {
			break
		}
	}
	if refErr != nil {
		t.Fatalf("the reference: %v", refErr)
	}
	for _, text := range c.says {
		if !strings.Contains(ref.output, text) {
			t.Errorf("the reference does not say %q", text)
		}
	}
	if os.Getenv("STARTUP_SHOW") != "" {
		t.Logf("reference: %s", ref)
	}
	if subErr != nil {
		t.Fatalf("arguments %q, variables %q\n    reference: %s\n    subject:   %v", c.args, c.env, ref, subErr)
	}
	if c.ours != nil && !same {
		c.checkOurs(t, sub)
		return
	}
	for _, text := range c.says {
		if !strings.Contains(sub.output, text) {
			t.Errorf("arguments %q, variables %q: the subject does not say %q", c.args, c.env, text)
		}
	}
	if ref.up != sub.up || ref.end != sub.end || !sameMessage(canon(ref.message), canon(sub.message)) {
		t.Errorf("arguments %q, variables %q\n    reference: %s\n    subject:   %s", c.args, c.env, ref, sub)
	}
}

// checkOurs holds a deliberate difference to what its entry says.
func (c start) checkOurs(t *testing.T, sub outcome) {
	t.Helper()
	if c.ours.why == "" {
		t.Fatal("a deliberate difference without a reason")
	}
	if !sub.up && sub.end != c.ours.end {
		t.Errorf("arguments %q: it ended with %s (%s), wanted %s, because %s", c.args, sub.end, sub.message, c.ours.end, c.ours.why)
	}
	text := sub.message
	if sub.up {
		text = sub.output
	}
	for _, want := range c.ours.says {
		if !strings.Contains(text, want) {
			t.Errorf("arguments %q: it does not say %q, but: %s", c.args, want, text)
		}
	}
}
