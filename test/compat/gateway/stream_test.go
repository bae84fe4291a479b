package gateway

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// stream is an open call to one side: what we send, and the lines that come.
type stream interface {
	// say sends one request.
	say(text string) error
	// line waits for the next answer; io.EOF at the end.
	line() (string, error)
	close()
}

// posted is a stream whose answers are the body of one POST. Its requests are
// all sent ahead: over HTTP/1, Go's server answers nothing before it has read
// the whole request.
type posted struct {
	cancel context.CancelFunc
	lines  *bufio.Reader
	body   io.Closer
}

func (s *side) post(path, requests string) (*posted, error) {
	ctx, cancel := context.WithTimeout(context.Background(), askWithin)
	req, err := s.request(ctx, ask{verb: "POST", path: path}, strings.NewReader(requests))
	if err != nil {
		cancel()
		return nil, err
	}
	resp, err := direct.RoundTrip(req)
	if err != nil {
		cancel()
		return nil, err
	}
	return &posted{cancel, bufio.NewReader(resp.Body), resp.Body}, nil
}

func (p *posted) say(string) error { return nil }

func (p *posted) line() (string, error) {
	line, err := p.lines.ReadString('\n')
	if line != "" {
		return strings.TrimSuffix(line, "\n"), nil
	}
	return "", err
}

func (p *posted) close() {
	p.cancel()
	p.body.Close()
}

// socket is a stream over WebSocket.
type socket struct{ conn *websocket.Conn }

func (s *side) dial(path string, protocols []string, headers ...string) (*socket, *http.Response, error) {
	dialer := websocket.Dialer{HandshakeTimeout: askWithin, Subprotocols: protocols}
	header := http.Header{}
	for i := 0; i+1 < len(headers); i += 2 {
		header.Add(headers[i], headers[i+1])
	}
	conn, resp, err := dialer.Dial("ws://"+s.values["{c}"]+path, header)
	if err != nil {
		return nil, resp, err
	}
	if err := conn.SetReadDeadline(time.Now().Add(askWithin)); err != nil {
		return nil, resp, err
	}
	return &socket{conn}, resp, nil
}

func (w *socket) say(text string) error {
	return w.conn.WriteMessage(websocket.TextMessage, []byte(text))
}

func (w *socket) line() (string, error) {
	kind, text, err := w.conn.ReadMessage()
	if err != nil {
		return "", err
	}
	if kind != websocket.TextMessage {
		return fmt.Sprintf("(message of kind %d) %s", kind, text), nil
	}
	return strings.TrimSuffix(string(text), "\n"), nil
}

func (w *socket) close() { w.conn.Close() }

// step is one move on a stream, and how many lines must come before the next.
type step struct {
	say string
	// put writes a key by another request.
	put   string
	lines int
}

// script is a conversation on one path.
type script struct {
	name, path string
	steps      []step
	// ends: as lines of a POST, the server ends the stream after the last step.
	ends bool
	// by is the only carrier that this can be told by; empty means both. Where
	// all requests come at once, the order of some answers is a matter of luck,
	// and a call with one request is answered when no further one can come.
	by string
}

// requests are all that a script says.
func (c script) requests() string {
	var all strings.Builder
	for _, move := range c.steps {
		all.WriteString(move.say)
	}
	return all.String()
}

func watchKey(key, more string) string {
	return fmt.Sprintf(`{"create_request":{"key":%q%s}}`, b64(key), more)
}

func scripts() []script {
	return []script{
		{name: "events", path: "/v3/watch", steps: []step{{say: watchKey("s", ""), lines: 1}, {put: "s", lines: 1}, {put: "s", lines: 1}}},
		{name: "camel and progress", by: "websocket", path: "/v3/watch", steps: []step{
			{say: `{"createRequest":{"key":"` + b64("s") + `","rangeEnd":"` + b64("t") + `","prevKv":true,"watchId":"7"}}`, lines: 1}, {put: "s1", lines: 1},
			{say: `{"progress_request":{}}`, lines: 1},
		}},
		{name: "history", path: "/v3/watch", steps: []step{{say: watchKey("old", `,"start_revision":"2"`), lines: 2}}},
		{name: "two and a cancel", path: "/v3/watch", steps: []step{
			{say: watchKey("s", ""), lines: 1}, {say: watchKey("s", `,"watch_id":5`) + "\n", lines: 1}, {say: `{"cancel_request":{"watch_id":"5"}}`, lines: 1}, {put: "s", lines: 1},
		}},
		{name: "filters", path: "/v3/watch", steps: []step{{say: watchKey("s", `,"filters":["NOPUT"]`), lines: 1}, {say: watchKey("s2", `,"filters":[1]`), lines: 1}, {put: "s", lines: 0}, {put: "s2", lines: 1}}},
		{name: "negative revision", path: "/v3/watch", steps: []step{{say: watchKey("s", `,"start_revision":-1`), lines: 1}}},
		{name: "empty range", path: "/v3/watch", steps: []step{{say: watchKey("s", `,"range_end":"`+b64("a")+`"`), lines: 1}}},
		{name: "nothing asked first", path: "/v3/watch", steps: []step{{say: `{}`}, {say: watchKey("s", ""), lines: 1}}},
		{name: "broken later", by: "websocket", path: "/v3/watch", steps: []step{{say: watchKey("s", ""), lines: 1}, {say: "nonsense\n"}}},
		{name: "keep alive", path: "/v3/lease/keepalive", ends: true, steps: []step{
			{say: `{"ID":"21"}`, lines: 1}, {say: `{"ID":"21"}`, lines: 1}, {say: `{"ID":"404"}`, lines: 1},
		}},
		{name: "keep alive, broken later", by: "websocket", path: "/v3/lease/keepalive", steps: []step{{say: `{"ID":"21"}`, lines: 1}, {say: "nonsense\n"}}},
		{name: "observe", by: "lines", path: "/v3/election/observe", steps: []step{{say: `{"name":"` + b64("e") + `"}`, lines: 1}}},
	}
}

// play goes through a script and returns all that came, masked.
func (s *side) play(c script, open func() (stream, error)) (lines []string, failed error) {
	st, err := open()
	if err != nil {
		return nil, err
	}
	defer st.close()
	for i, move := range c.steps {
		if move.say != "" {
			if err := st.say(move.say); err != nil {
				return lines, fmt.Errorf("step %d: %w", i, err)
			}
		}
		if move.put != "" {
			ctx, cancel := contextFor(askWithin)
			got := s.ask(ctx, ask{verb: "POST", path: "/v3/kv/put", body: fmt.Sprintf(`{"key":%q,"value":"dg=="}`, b64(move.put))})
			cancel()
			if got.status != 200 {
				return lines, fmt.Errorf("step %d: put: %v", i, got)
			}
		}
		for range move.lines {
			line, err := st.line()
			if err != nil {
				return lines, fmt.Errorf("step %d: %w", i, err)
			}
			lines = append(lines, s.canon(c.path, line))
			// A server can end with its answer whatever was still to come.
			if strings.HasPrefix(line, `{"error"`) {
				return lines, nil
			}
		}
	}
	if _, posted := st.(*posted); c.ends && posted {
		if line, err := st.line(); err == nil {
			return lines, fmt.Errorf("it says more than etcd: %s", line)
		}
	}
	return lines, nil
}

// TestStreams plays each script as lines of one POST and over WebSocket.
func TestStreams(t *testing.T) {
	t.Parallel()
	p := start(t)
	post := func(path, body string) { p.check("stream", ask{verb: "POST", path: path, body: body}) }
	post("/v3/kv/put", `{"key":"`+b64("old")+`","value":"`+b64("1")+`"}`)
	post("/v3/lease/grant", `{"ID":"21","TTL":"3600"}`)
	post("/v3/election/campaign", `{"name":"`+b64("e")+`","lease":"21","value":"`+b64("me")+`"}`)
	for _, carrier := range []string{"lines", "websocket"} {
		for _, c := range scripts() {
			if c.by != "" && c.by != carrier {
				continue
			}
			type result struct {
				lines  []string
				failed error
			}
			ref, sub := both(p, func(s *side) result {
				lines, err := s.play(c, func() (stream, error) {
					if carrier == "lines" {
						return s.post(c.path, c.requests())
					}
					w, _, err := s.dial(c.path, nil)
					return w, err
				})
				return result{lines, err}
			})
			if ref.failed != nil {
				t.Fatalf("%s by %s on the reference: %v after %q", c.name, carrier, ref.failed, ref.lines)
			}
			count(carrier, 200)
			if sub.failed != nil || !slices.Equal(ref.lines, sub.lines) {
				p.differs(carrier, c.name, strings.Join(ref.lines, "\n"), fmt.Sprintf("%s\n%v", strings.Join(sub.lines, "\n"), sub.failed))
			}
		}
	}
}

// TestWebSocket compares handshakes, and calls that are no streams.
func TestWebSocket(t *testing.T) {
	t.Parallel()
	p := start(t)
	p.check("stream", ask{verb: "POST", path: "/v3/kv/put", body: `{"key":"YQ==","value":"YQ=="}`})
	for _, c := range []struct {
		path, say string
		protocols []string
		headers   []string
		// answers: etcd answers a call that is no stream only where it fails.
		answers bool
	}{
		{path: "/v3/kv/range", say: `{"key":"YQ=="}`},
		{path: "/v3beta/kv/range", say: `{"key":"YQ=="}`},
		{path: "/v3/kv/range", say: `{"key":"YQ=="}`, protocols: []string{"Bearer", "token"}},
		{path: "/v3/kv/range", say: `{"key":"YQ=="}`, protocols: []string{"other"}},
		{path: "/v3/kv/range", say: `{"key":"YQ=="}`, headers: []string{"Origin", "http://other.example"}},
		{path: "/v3/kv/range", say: `{"key":"YQ=="}`, headers: []string{"Cookie", "token=x"}},
		{path: "/v3/kv/range", say: `nonsense`, answers: true},
		{path: "/v3/nothing", say: `{}`, answers: true},
		{path: "/version", say: `{}`},
		{path: "/health", say: `{}`},
	} {
		ref, sub := both(p, func(s *side) string {
			w, resp, err := s.dial(c.path, c.protocols, c.headers...)
			if err != nil {
				if resp == nil {
					return "no handshake"
				}
				return fmt.Sprintf("refused with %d", resp.StatusCode)
			}
			defer w.close()
			text := fmt.Sprintf("protocol %q\n", resp.Header.Get("Sec-Websocket-Protocol"))
			if err := w.say(c.say); err != nil {
				return text + "no request"
			}
			if !c.answers {
				return text
			}
			line, err := w.line()
			if err != nil {
				return text + "no line"
			}
			return text + s.canon(c.path, line)
		})
		if os.Getenv("GATEWAY_SHOW") != "" {
			t.Logf("%s %q %q %s: %s", c.path, c.protocols, c.headers, c.say, ref)
		}
		status := 200
		if strings.HasPrefix(ref, "refused") {
			status = 400
		}
		count("handshake", status)
		if ref != sub {
			p.differs("handshake", fmt.Sprintf("%s %q %q %s", c.path, c.protocols, c.headers, c.say), ref, sub)
		}
	}
	// Handshakes that are none.
	for _, headers := range [][]string{
		{"Connection", "Upgrade", "Upgrade", "websocket"},
		{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13"},
		{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "8", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="},
		{"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "short"},
		{"Connection", "Upgrade", "Upgrade", "other", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="},
		{"Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="},
	} {
		p.check("handshake", ask{verb: "GET", path: "/v3/kv/range", headers: headers})
		p.check("handshake", ask{verb: "POST", path: "/v3/kv/range", headers: headers, body: "{}"})
	}
}

// TestManyEvents: a watcher of many keys sees each event once and in order,
// however the answers are cut.
func TestManyEvents(t *testing.T) {
	t.Parallel()
	p := start(t)
	const n = 500
	for i := range n {
		count("many", 200)
		ref, sub := both(p, func(s *side) int {
			ctx, cancel := contextFor(askWithin)
			defer cancel()
			return s.ask(ctx, ask{verb: "POST", path: "/v3/kv/put", body: fmt.Sprintf(`{"key":%q}`, b64(fmt.Sprintf("m%04d", i)))}).status
		})
		if ref != 200 || sub != 200 {
			t.Fatalf("put: %d and %d", ref, sub)
		}
	}
	ref, sub := both(p, func(s *side) string {
		st, err := s.post("/v3/watch", watchKey("m", `,"range_end":"`+b64("n")+`","start_revision":2`))
		if err != nil {
			return err.Error()
		}
		defer st.close()
		var keys []string
		for len(keys) < n {
			line, err := st.line()
			if err != nil {
				return err.Error()
			}
			var message struct {
				Result struct {
					Events []struct {
						KV struct {
							Key []byte
							Mod string `json:"mod_revision"`
						}
					}
				}
			}
			if err := json.Unmarshal([]byte(line), &message); err != nil {
				return err.Error()
			}
			for _, event := range message.Result.Events {
				keys = append(keys, string(event.KV.Key)+"@"+event.KV.Mod)
			}
		}
		return strings.Join(keys, " ")
	})
	if ref != sub {
		p.differs("many", "watch of all keys", ref, sub)
	}
}
