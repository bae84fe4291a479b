// Package gateway puts the same HTTP requests to etcd and to the server under
// test: the JSON gateway with its streams, as lines and over WebSocket, and
// all other pages of the client and metrics ports.
//
//	           ┌─► reference ─► status, headers, body ─┐
//	request ───┤                                       ├─ mask ─► equal? ─► tally
//	           └─► subject ───► status, headers, body ─┘
//
// JSON is compared as values: order and spaces do not count, but whether a
// number is a string does, and so does a field that is there though it is
// empty. Masked are ids, terms, raft indexes, file sizes, and own addresses.
package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"milepost.dev/test/compat/harness"
)

// askWithin bounds one request: a server that does not answer is a finding.
const askWithin = 20 * time.Second

// toldPerKind differences of one kind are told, the others only counted.
const toldPerKind = 12

// side is one of the two servers.
type side struct {
	server *harness.Server
	// member and cluster are its ids, decimal.
	member, cluster string
	// values are addresses of its own, by the name that replaces them.
	values map[string]string
}

// pair is both servers, asked in step.
type pair struct {
	t        *testing.T
	ref, sub *side
	same     bool
	mu       sync.Mutex
	found    map[string]int
}

// start runs both servers. In args {h} and {m} stand for addresses that are
// each side's own.
func start(t *testing.T, args ...string) *pair {
	t.Helper()
	p := &pair{t: t, same: harness.SubjectIsReference(t), found: map[string]int{}}
	begin := func(bin harness.Binary) *side {
		s := &side{values: map[string]string{"{h}": harness.FreeAddr(t), "{m}": harness.FreeAddr(t)}}
		var own []string
		for _, arg := range args {
			own = append(own, s.fill(arg))
		}
		s.server = harness.Prepare(t, bin, harness.Options{NoSync: true, Args: own})
		s.values["{c}"] = strings.TrimPrefix(s.server.ClientURL, "http://")
		s.values["{p}"] = strings.TrimPrefix(s.server.PeerURL, "http://")
		return s
	}
	p.ref, p.sub = begin(harness.Reference(t)), begin(harness.Subject(t))
	split := strings.Contains(strings.Join(args, " "), "listen-client-http-urls")
	for _, s := range []*side{p.ref, p.sub} {
		root := s.values["{c}"]
		if split {
			root = s.values["{h}"]
		}
		if err := s.run(root); err != nil {
			t.Fatalf("%s did not start: %v", s.server.Binary.Name, err)
		}
	}
	return p
}

// run starts the server and waits until its pages tell a settled version.
func (s *side) run(root string) error {
	if err := s.server.Spawn(); err != nil {
		return err
	}
	deadline := time.Now().Add(60 * time.Second)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		got := s.ask(ctx, ask{root: "http://" + root, verb: "GET", path: "/version"})
		healthy := s.ask(ctx, ask{root: "http://" + root, verb: "GET", path: "/health"})
		cancel()
		// etcd's storage begins as 3.5's and is raised when the cluster's version is known.
		isSettled := !strings.Contains(got.body, "not_decided") && !strings.Contains(got.body, "unknown") && !strings.Contains(got.body, `"storage":"3.5.0"`)
		if got.status == 200 && healthy.status == 200 && isSettled {
			break
		}
		select {
		case <-s.server.Exited():
			return fmt.Errorf("it ended:\n%s", s.server.LogTail(5))
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no page within a minute: %v", got)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), askWithin)
	defer cancel()
	got := s.ask(ctx, ask{root: "http://" + root, verb: "POST", path: "/v3/maintenance/status", body: "{}"})
	var status struct {
		Header struct {
			ClusterID string `json:"cluster_id"`
			MemberID  string `json:"member_id"`
		}
	}
	if err := json.Unmarshal([]byte(got.body), &status); err == nil {
		s.member, s.cluster = status.Header.MemberID, status.Header.ClusterID
	}
	return nil
}

func (s *side) fill(text string) string {
	for name, value := range s.values {
		text = strings.ReplaceAll(text, name, value)
	}
	return text
}

func (s *side) mask(text string) string {
	for name, value := range s.values {
		text = strings.ReplaceAll(text, value, name)
	}
	return text
}

// ask is one HTTP request.
type ask struct {
	// root is scheme and address; empty means the client URL.
	root string
	verb string
	path string
	body string
	// headers are NAME, value, NAME, value …; Host is the request's host.
	headers []string
}

func (a ask) String() string {
	text := a.verb + " " + a.root + a.path
	if len(a.headers) > 0 {
		text += fmt.Sprintf(" %q", a.headers)
	}
	body := a.body
	if len(body) > 400 {
		body = fmt.Sprintf("%s… <%d bytes>", body[:200], len(body))
	}
	return text + " " + body
}

// answer is what came back; failed says why nothing did.
type answer struct {
	status  int
	headers http.Header
	body    string
	failed  string
}

// direct sends each request on a connection of its own and follows nothing.
var direct = &http.Transport{DisableKeepAlives: true, DisableCompression: true}

func (s *side) request(ctx context.Context, a ask, body io.Reader) (*http.Request, error) {
	root := a.root
	if root == "" {
		root = s.server.ClientURL
	}
	req, err := http.NewRequestWithContext(ctx, a.verb, s.fill(root+a.path), body)
	if err != nil {
		return nil, err
	}
	for i := 0; i+1 < len(a.headers); i += 2 {
		if a.headers[i] == "Host" {
			req.Host = a.headers[i+1]
		} else {
			req.Header.Add(a.headers[i], a.headers[i+1])
		}
	}
	return req, nil
}

func (s *side) ask(ctx context.Context, a ask) answer {
	var body io.Reader
	if a.body != "" {
		body = strings.NewReader(s.fill(a.body))
	}
	req, err := s.request(ctx, a, body)
	if err != nil {
		return answer{failed: err.Error()}
	}
	resp, err := direct.RoundTrip(req)
	if err != nil {
		return answer{failed: err.Error()}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	got := answer{status: resp.StatusCode, headers: resp.Header, body: string(text)}
	if err != nil {
		got.failed = err.Error()
	}
	return got
}

// counted are the headers that a client can act on.
var counted = []string{
	"Content-Type", "Allow", "X-Content-Type-Options", "Access-Control-Allow-Origin", "Access-Control-Allow-Methods",
	"Access-Control-Allow-Headers", "Grpc-Metadata-Content-Type", "Www-Authenticate", "Location", "Content-Encoding",
}

// shown is an answer in the form in which two are compared.
func (s *side) shown(a ask, got answer) string {
	if got.failed != "" && got.status == 0 {
		return "no answer"
	}
	parts := []string{fmt.Sprint(got.status)}
	for _, name := range counted {
		if values := got.headers.Values(name); len(values) > 0 {
			parts = append(parts, name+": "+s.mask(strings.Join(values, " & ")))
		}
	}
	return strings.Join(parts, "; ") + "\n" + s.canon(a.path, got.body)
}

// canon is a body in comparable form: JSON values masked, one per line.
func (s *side) canon(path, body string) string {
	decoder := json.NewDecoder(strings.NewReader(body))
	decoder.UseNumber()
	var lines []string
	for {
		var value any
		err := decoder.Decode(&value)
		if err == io.EOF {
			return strings.Join(lines, "\n")
		}
		if err != nil {
			return s.mask(body)
		}
		if _, object := value.(map[string]any); !object {
			return s.mask(body)
		}
		text, err := json.Marshal(s.masked(path, "", value))
		if err != nil {
			return s.mask(body)
		}
		lines = append(lines, string(text))
	}
}

// masked replaces what two healthy servers need not have in common.
func (s *side) masked(path, key string, value any) any {
	switch v := value.(type) {
	case map[string]any:
		for k, inner := range v {
			v[k] = s.masked(path, k, inner)
		}
		if message, is := v["message"].(string); is && parserWords(v["code"], message) {
			v["message"] = "(the parser's words)"
		}
		return v
	case []any:
		for i, inner := range v {
			v[i] = s.masked(path, key, inner)
		}
		if key == "leases" { // in no order
			sort.Slice(v, func(i, j int) bool { return fmt.Sprint(v[i]) < fmt.Sprint(v[j]) })
		}
		return v
	case string:
		switch key {
		case "raft_term", "raftTerm", "raftIndex", "raftAppliedIndex", "dbSize", "dbSizeInUse":
			return "(set)"
		case "member_id", "cluster_id", "leader", "ID", "memberID":
			switch v {
			case s.member:
				return "(own member)"
			case s.cluster:
				return "(own cluster)"
			}
			// A lease's id that a server has chosen; those of requests are short.
			if key == "ID" && len(v) > 6 {
				return "(chosen)"
			}
		case "TTL":
			if strings.HasSuffix(path, "timetolive") && !strings.HasPrefix(v, "-") {
				return "(left)"
			}
		}
		return s.mask(v)
	case json.Number:
		if key == "hash" && strings.HasSuffix(path, "maintenance/hash") {
			return "(of the file)"
		}
	}
	return value
}

// parserWords tells whether a message is that of a JSON or number parser,
// whose words are Go's: they must be there, but need not be equal.
func parserWords(code any, message string) bool {
	if fmt.Sprint(code) != "3" || message == "" || strings.HasPrefix(message, "etcdserver:") {
		return false
	}
	return !strings.HasPrefix(message, "grpc:")
}

// both asks the two sides at once.
func both[R any](p *pair, do func(*side) R) (ref, sub R) {
	var done sync.WaitGroup
	done.Go(func() { ref = do(p.ref) })
	sub = do(p.sub)
	done.Wait()
	return ref, sub
}

// check puts one request to both, counts it, and compares.
func (p *pair) check(kind string, a ask) answer {
	p.t.Helper()
	type result struct {
		got   answer
		shown string
	}
	ref, sub := both(p, func(s *side) result {
		ctx, cancel := context.WithTimeout(context.Background(), askWithin)
		defer cancel()
		got := s.ask(ctx, a)
		return result{got, s.shown(a, got)}
	})
	count(kind, ref.got.status)
	select {
	case <-p.ref.server.Exited():
		p.t.Fatalf("the reference died over %s", a)
	default:
	}
	if ref.shown != sub.shown {
		p.differs(kind, a.String(), ref.shown, sub.shown)
	}
	return ref.got
}

// differs records one difference.
func (p *pair) differs(kind, question, ref, sub string) {
	p.t.Helper()
	p.mu.Lock()
	p.found[kind]++
	n := p.found[kind]
	p.mu.Unlock()
	p.t.Fail()
	text := fmt.Sprintf("[%s] %s\n    reference: %s\n    subject:   %s", kind, question, cut(ref), cut(sub))
	if name := os.Getenv("COMPAT_REPORT"); name != "" {
		if f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644); err == nil {
			fmt.Fprintf(f, "%s %s\n\n", p.t.Name(), text)
			f.Close()
		}
	}
	switch {
	case n <= toldPerKind:
		p.t.Error(text)
	case n == toldPerKind+1:
		p.t.Errorf("[%s] … and more of this kind (COMPAT_REPORT=file tells all)", kind)
	}
}

func cut(text string) string {
	if len(text) > 1500 {
		return fmt.Sprintf("%s… <%d bytes>", text[:1500], len(text))
	}
	return text
}

// tally counts requests by kind and by the reference's status.
var tally = struct {
	sync.Mutex
	rows map[string]map[int]int
}{rows: map[string]map[int]int{}}

func count(kind string, status int) {
	tally.Lock()
	defer tally.Unlock()
	if tally.rows[kind] == nil {
		tally.rows[kind] = map[int]int{}
	}
	tally.rows[kind][status]++
}

// floors are the least numbers of requests of a kind that had to succeed
// (status below 400) and to fail.
var floors = map[string][2]int{
	"route": {25, 80}, "older name": {10, 5}, "method": {40, 250}, "unknown": {4, 120}, "header": {25, 3}, "raw": {4, 12},
	"range": {40, 15}, "broken": {1, 50}, "put": {10, 8}, "deleterange": {4, 1}, "txn": {15, 12}, "lease": {18, 5}, "compact": {2, 3},
	"alarm": {7, 0}, "maintain": {8, 2}, "lock": {14, 6}, "random": {400, 20}, "lines": {8, 0}, "websocket": {9, 0}, "handshake": {6, 6}, "many": {400, 0},
	"health": {70, 60}, "alarm page": {80, 150}, "metrics port": {3, 30}, "metrics": {30, 10}, "host": {20, 80}, "origin": {50, 50},
	"http port": {8, 5}, "grpc port": {0, 4}, "debug": {30, 50}, "version": {8, 30},
}

// TestMain prints what was asked, and fails a whole run that asked too little.
func TestMain(m *testing.M) {
	code := m.Run()
	tally.Lock()
	defer tally.Unlock()
	var out bytes.Buffer
	kinds := make([]string, 0, len(tally.rows))
	for kind := range tally.rows {
		kinds = append(kinds, kind)
	}
	sort.Strings(kinds)
	total := 0
	for _, kind := range kinds {
		statuses := make([]int, 0, len(tally.rows[kind]))
		for status, n := range tally.rows[kind] {
			statuses = append(statuses, status)
			total += n
		}
		sort.Ints(statuses)
		fmt.Fprintf(&out, "%-12s", kind)
		for _, status := range statuses {
			fmt.Fprintf(&out, " %d×%d", status, tally.rows[kind][status])
		}
		out.WriteByte('\n')
	}
	fmt.Printf("%d requests by kind and status\n%s", total, out.String())
	if whole := len(kinds) >= len(floors); whole && code == 0 {
		for kind, least := range floors {
			ok, failed := 0, 0
			for status, n := range tally.rows[kind] {
				if status > 0 && status < 400 {
					ok += n
				} else {
					failed += n
				}
			}
			if ok < least[0] || failed < least[1] {
				fmt.Printf("%s: %d succeeded and %d failed, wanted at least %d and %d\n", kind, ok, failed, least[0], least[1])
				code = 1
			}
		}
	}
	os.Exit(code)
}

// raw sends bytes as they are and returns the first line of the answer.
func (s *side) raw(text string) string {
	conn, err := net.DialTimeout("tcp", s.values["{c}"], askWithin)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(askWithin)); err != nil {
		return err.Error()
	}
	if _, err := io.WriteString(conn, s.fill(text)); err != nil {
		return "closed while we wrote"
	}
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	if n == 0 {
		if os.IsTimeout(err) {
			return "(no answer)"
		}
		return "(closed)"
	}
	line, _, _ := strings.Cut(string(buf[:n]), "\r\n")
	return line
}
