package gateway

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestHealth asks the health pages with all their parameters, in good health
// and with an alarm.
func TestHealth(t *testing.T) {
	t.Parallel()
	p := start(t, "--listen-metrics-urls=http://{m}")
	checks := []string{"serializable_read", "linearizable_read", "data_corruption", "non_learner", "nothing"}
	paths := []string{
		"/health", "/health?serializable=true", "/health?serializable=false", "/health?serializable=1", "/health?serializable", "/health?serializable=True",
		"/health?exclude=NOSPACE", "/health?exclude=CORRUPT", "/health?exclude=NOSPACE&exclude=CORRUPT", "/health?exclude=nothing", "/health?exclude=", "/health?%zz",
		"/health?exclude=NOSPACE;x", "/health/", "/healthz", "/HEALTH", "/livez", "/readyz", "/livez?verbose", "/readyz?verbose", "/readyz?verbose=false", "/livez/", "/readyz/",
		"/readyz?verbose&exclude=linearizable_read", "/readyz?exclude=linearizable_read&exclude=data_corruption&verbose", "/readyz?exclude=nothing&verbose", "/livez?exclude=serializable_read&verbose",
	}
	for _, name := range checks {
		paths = append(paths, "/livez/"+name, "/readyz/"+name, "/readyz/"+name+"?verbose", "/livez/"+name+"?verbose", "/readyz/"+name+"?exclude="+name+"&verbose")
	}
	all := func(kind string) {
		for _, root := range []string{"http://{c}", "http://{m}"} {
			for _, path := range paths {
				p.page(kind, ask{root: root, verb: "GET", path: path})
			}
			for _, verb := range []string{"POST", "HEAD", "PUT", "DELETE", "OPTIONS"} {
				for _, path := range []string{"/health", "/livez", "/readyz", "/readyz/linearizable_read"} {
					p.page(kind, ask{root: root, verb: verb, path: path})
				}
			}
		}
	}
	all("health")
	for _, alarm := range []string{"NOSPACE", "CORRUPT"} {
		set := func(action string) {
			_, _ = both(p, func(s *side) int {
				ctx, cancel := contextFor(askWithin)
				defer cancel()
				return s.ask(ctx, ask{verb: "POST", path: "/v3/maintenance/alarm", body: fmt.Sprintf(`{"action":%q,"memberID":%q,"alarm":%q}`, action, s.member, alarm)}).status
			})
		}
		set("ACTIVATE")
		all("alarm page")
		set("DEACTIVATE")
	}
}

// page is check for pages whose lines come in any order.
func (p *pair) page(kind string, a ask) {
	p.t.Helper()
	type result struct {
		status int
		shown  string
	}
	ref, sub := both(p, func(s *side) result {
		ctx, cancel := contextFor(askWithin)
		defer cancel()
		got := s.ask(ctx, a)
		lines := strings.Split(s.shown(a, got), "\n")
		slices.Sort(lines)
		return result{got.status, strings.Join(lines, "\n")}
	})
	count(kind, ref.status)
	if ref.shown != sub.shown {
		p.differs(kind, a.String(), ref.shown, sub.shown)
	}
}

// TestMetricsPort: the metrics port serves its few pages and nothing else.
func TestMetricsPort(t *testing.T) {
	t.Parallel()
	p := start(t, "--listen-metrics-urls=http://{m}", "--host-whitelist=127.0.0.1", "--cors=http://a.example:80")
	for _, path := range []string{"/version", "/debug/vars", "/debug/pprof/", "/v3/kv/range", "/", "/nothing", "/health", "/livez", "/readyz", "/members"} {
		for _, verb := range []string{"GET", "POST", "OPTIONS", "HEAD"} {
			p.page("metrics port", ask{root: "http://{m}", verb: verb, path: path})
		}
	}
	for _, headers := range [][]string{nil, {"Accept-Encoding", "gzip"}, {"Accept", "application/openmetrics-text"}, {"Accept", "text/html"}, {"Host", "other.example"}, {"Origin", "http://a.example:80"}} {
		for _, verb := range []string{"GET", "POST", "HEAD", "OPTIONS"} {
			p.metrics(ask{root: "http://{m}", verb: verb, path: "/metrics", headers: headers})
			if !slices.Contains(headers, "other.example") {
				p.metrics(ask{verb: verb, path: "/metrics", headers: headers})
			}
		}
	}
}

// metrics compares a metrics page without its numbers.
func (p *pair) metrics(a ask) {
	p.t.Helper()
	ref, sub := both(p, func(s *side) answer {
		ctx, cancel := contextFor(askWithin)
		defer cancel()
		got := s.ask(ctx, a)
		if len(got.body) > 100 {
			got.body = "(a page)"
		}
		return got
	})
	count("metrics", ref.status)
	if one, two := p.ref.shown(a, ref), p.sub.shown(a, sub); one != two {
		p.differs("metrics", a.String(), one, two)
	}
}

// TestAccess: which hosts and origins are let in.
func TestAccess(t *testing.T) {
	t.Parallel()
	p := start(t, "--host-whitelist=127.0.0.1,good.example", "--cors=http://a.example:80,https://b.example:443")
	for _, path := range []string{"/version", "/health", "/v3/kv/range", "/nothing", "/metrics"} {
		for _, host := range []string{"", "good.example", "good.example:2379", "bad.example", "bad.example:2379", "GOOD.example", "127.0.0.1:1", "localhost", "[::1]:1", "sub.good.example"} {
			for _, verb := range []string{"GET", "POST", "OPTIONS"} {
				a := ask{verb: verb, path: path, headers: []string{"Host", host}}
				if host == "" {
					a.headers = nil
				}
				if path == "/metrics" {
					p.metrics(a)
				} else {
					p.page("host", a)
				}
			}
		}
		for _, origin := range []string{"http://a.example:80", "https://b.example:443", "http://a.example", "http://a.example:80/", "HTTP://A.example:80", "*", "null", "http://c.example:80", ""} {
			for _, verb := range []string{"GET", "POST", "OPTIONS"} {
				a := ask{verb: verb, path: path, headers: []string{"Origin", origin, "Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "content-type"}}
				if path == "/metrics" {
					p.metrics(a)
				} else {
					p.page("origin", a)
				}
			}
		}
	}
}

// TestSplit: gRPC and HTTP on ports of their own.
func TestSplit(t *testing.T) {
	t.Parallel()
	p := start(t, "--listen-client-http-urls=http://{h}")
	for _, path := range []string{"/version", "/health", "/v3/kv/range", "/v3/kv/put", "/nothing", "/livez", "/debug/vars/x"} {
		for _, verb := range []string{"GET", "POST", "OPTIONS"} {
			p.page("http port", ask{root: "http://{h}", verb: verb, path: path, body: `{"key":"YQ=="}`})
		}
	}
	p.metrics(ask{root: "http://{h}", verb: "GET", path: "/metrics"})
	// HTTP/1 has nothing to say to the gRPC port.
	for _, path := range []string{"/version", "/health", "/metrics", "/v3/kv/range"} {
		ref, sub := both(p, func(s *side) answer {
			ctx, cancel := contextFor(askWithin)
			defer cancel()
			return s.ask(ctx, ask{root: "http://{c}", verb: "GET", path: path})
		})
		count("grpc port", ref.status)
		// etcd hangs up; ours may say so before it does.
		if ref.status != 0 || sub.status != 0 && (sub.status != 415 || sub.body != "") {
			p.differs("grpc port", path, fmt.Sprint(ref.status, ref.body), fmt.Sprint(sub.status, sub.body))
		}
	}
}

// goOnly are pages about Go's runtime that only Go's runtime can give: what
// ours answers where etcd has them.
var goOnly = map[string]int{
	"/debug/pprof/profile?seconds=1": 501, "/debug/pprof/trace?seconds=1": 501, "/debug/pprof/block": 501, "/debug/pprof/mutex": 501,
	"/debug/events": 404,
}

// TestDebug: the pages for those who look inside.
func TestDebug(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		args []string
	}{{"plain", nil}, {"pprof", []string{"--enable-pprof"}}, {"debug", []string{"--log-level=debug"}}, {"no gateway", []string{"--enable-grpc-gateway=false"}}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, c.args...)
			for _, path := range []string{
				"/debug/pprof/", "/debug/pprof/heap", "/debug/pprof/goroutine", "/debug/pprof/cmdline", "/debug/pprof/symbol", "/debug/pprof/threadcreate", "/debug/pprof/block",
				"/debug/pprof/mutex", "/debug/pprof/profile?seconds=1", "/debug/pprof/trace?seconds=1", "/debug/pprof/nothing", "/debug/pprof", "/debug", "/debug/", "/debug/vars",
				"/debug/requests", "/debug/events", "/debug/nothing",
			} {
				ref, sub := both(p, func(s *side) answer {
					ctx, cancel := contextFor(askWithin)
					defer cancel()
					return s.ask(ctx, ask{verb: "GET", path: path})
				})
				count("debug", ref.status)
				if ours, is := goOnly[path]; is && ref.status == 200 && !p.same {
					if sub.status != ours || sub.body == "" {
						p.differs("debug", path, fmt.Sprint(ours, " with a sentence"), p.sub.shown(ask{path: path}, sub))
					}
					continue
				}
				if ref.status != sub.status || path != "/debug/vars" && (len(ref.body) > 0) != (len(sub.body) > 0) {
					p.differs("debug", path, cut(p.ref.shown(ask{path: path}, ref)), cut(p.sub.shown(ask{path: path}, sub)))
				}
			}
			for _, path := range []string{"/v3/kv/range", "/v3beta/kv/range", "/v3/nothing"} {
				p.check("debug", ask{verb: "POST", path: path, body: `{"key":"YQ=="}`})
			}
			ref, sub := both(p, (*side).vars)
			if ref != sub {
				p.differs("debug", "/debug/vars", ref, sub)
			}
			for _, verb := range []string{"POST", "HEAD", "OPTIONS"} {
				p.page("debug", ask{verb: verb, path: "/debug/vars"})
			}
		})
	}
}

// vars is what of /debug/vars any server has: names, and the state of raft.
func (s *side) vars() string {
	ctx, cancel := contextFor(askWithin)
	defer cancel()
	got := s.ask(ctx, ask{verb: "GET", path: "/debug/vars"})
	var page struct {
		Cmdline []string `json:"cmdline"`
		Limit   uint64   `json:"file_descriptor_limit"`
		Memory  any      `json:"memstats"`
		Raft    struct {
			ID        string
			Term      any
			Lead      string
			RaftState string `json:"raftState"`
			Progress  map[string]map[string]any
		} `json:"raft.status"`
	}
	if err := json.Unmarshal([]byte(got.body), &page); err != nil {
		return err.Error()
	}
	own := page.Raft.ID == page.Raft.Lead && len(page.Raft.ID) > 8
	fields := make([]string, 0, 3)
	for name := range page.Raft.Progress[page.Raft.ID] {
		fields = append(fields, name)
	}
	slices.Sort(fields)
	return fmt.Sprintf("%d %q; command line %t, limit %d, memory %t; leads itself %t, %s, progress %q",
		got.status, got.headers.Get("Content-Type"), len(page.Cmdline) > 5, page.Limit, page.Memory != nil, own, page.Raft.RaftState, fields)
}

// TestVersion: the one page that tells versions.
func TestVersion(t *testing.T) {
	t.Parallel()
	p := start(t)
	for _, verb := range []string{"GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "NONSENSE"} {
		for _, path := range []string{"/version", "/version/", "/version?x=1", "/versions", "/Version"} {
			p.page("version", ask{verb: verb, path: path})
		}
	}
	for _, path := range []string{"/config/local/log", "/v2/keys/a?wait=true", "/v2/stats/self", "/favicon.ico", "/%2e%2e/version", "/../version", "//version", "/./version", "/members", "/raft", "/leases"} {
		p.page("version", ask{verb: "GET", path: path})
		p.page("version", ask{verb: "PUT", path: path})
	}
}
