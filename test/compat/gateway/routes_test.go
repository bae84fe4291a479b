package gateway

import (
	"strings"
	"testing"
)

// route is one path of the JSON gateway.
type route struct {
	path string
	// later: our server has no such call yet and says so (501, code 12).
	later bool
	// stream: an empty request is answered late, at length, or never.
	stream bool
}

// routes are all paths of etcd's gateway.
func routes() []route {
	var all []route
	add := func(prefix string, later bool, names ...string) {
		for _, name := range names {
			all = append(all, route{path: "/v3/" + prefix + "/" + name, later: later})
		}
	}
	add("kv", false, "range", "put", "deleterange", "txn", "compaction", "lease/revoke", "lease/timetolive", "lease/leases")
	// The list before the first grant: without a TTL a lease lives two seconds.
	add("lease", false, "leases", "revoke", "timetolive", "grant")
	add("cluster/member", false, "add", "remove", "update", "promote", "list")
	add("maintenance", false, "alarm", "status", "defragment", "hash", "hashkv", "transfer-leadership", "downgrade")
	add("auth", true, "enable", "disable", "user/add", "user/get", "user/list", "user/delete", "user/changepw", "user/grant",
		"user/revoke", "role/add", "role/get", "role/list", "role/delete", "role/grant", "role/revoke")
	add("auth", false, "status", "authenticate")
	add("lock", false, "unlock")
	add("election", false, "proclaim", "leader", "resign")
	return append(all,
		// Without a lease these two make one and hold it.
		route{path: "/v3/lock/lock", stream: true}, route{path: "/v3/election/campaign", stream: true},
		route{path: "/v3/watch", stream: true}, route{path: "/v3/lease/keepalive", stream: true},
		route{path: "/v3/election/observe", stream: true}, route{path: "/v3/maintenance/snapshot", stream: true, later: true})
}

// checkLater holds a call that our server has not yet to its own answer.
func (p *pair) checkLater(kind string, a ask) {
	p.t.Helper()
	if p.same {
		p.check(kind, a)
		return
	}
	_, sub := both(p, func(s *side) answer {
		if s == p.ref {
			return answer{}
		}
		ctx, cancel := contextFor(askWithin)
		defer cancel()
		return s.ask(ctx, a)
	})
	count(kind, 501)
	if sub.status != 501 || !strings.Contains(strings.ReplaceAll(sub.body, " ", ""), `"code":12`) {
		p.differs(kind, a.String(), "501 with code 12 until the call exists", p.sub.shown(a, sub))
	}
}

// TestRoutes asks every route with nothing, with wrong methods and under its
// older name.
func TestRoutes(t *testing.T) {
	t.Parallel()
	p := start(t)
	for _, r := range routes() {
		if !r.stream {
			for _, body := range []string{"", "{}", "null", "[]"} {
				a := ask{verb: "POST", path: r.path, body: body}
				// A body that is no object is refused before the call is made.
				if r.later && body != "[]" && body != "null" {
					p.checkLater("route", a)
				} else if !r.later {
					p.check("route", a)
				}
			}
			if !r.later {
				p.check("older name", ask{verb: "POST", path: strings.Replace(r.path, "/v3/", "/v3beta/", 1), body: "{}"})
			}
		}
		for _, verb := range []string{"GET", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE"} {
			p.check("method", ask{verb: verb, path: r.path})
		}
		p.check("unknown", ask{verb: "POST", path: r.path + "/", body: "{}"})
		p.check("unknown", ask{verb: "POST", path: r.path + "x", body: "{}"})
	}
	for _, path := range []string{
		"/v3", "/v3/", "/v3/kv", "/v3/kv/", "/v3/kv/rangestream", "/v3alpha/kv/range", "/v2/keys", "/v2/keys/a", "/v2/members", "/v1", "/",
		"/nothing", "/v3/KV/range", "/v3/kv/Range", "/v3/kv/range:x", "/v3/kv/range?key=Zm9v", "/v3/kv/range?", "/v3/kv/ra%6Ege", "/v3/kv%2Frange",
		"/v3beta", "/v3beta/", "/v3beta/nothing", "/v3/v3beta/kv/range", "/v3beta/v3beta/kv/range", "/v3//kv/range", "//v3/kv/range", "/v3/kv/../kv/range",
		"/v3/./kv/range", "/etcdserverpb.KV/Range", "/v3/kv/range;x=1", "/v3/kv/range#x",
	} {
		for _, verb := range []string{"POST", "GET"} {
			p.check("unknown", ask{verb: verb, path: path, body: `{"key":"YQ=="}`})
		}
	}
	for _, headers := range [][]string{
		{"Content-Type", "application/json"}, {"Content-Type", "text/plain"}, {"Content-Type", "application/x-www-form-urlencoded"},
		{"Content-Type", "application/xml"}, {"Content-Type", "nonsense"}, {"Content-Type", "application/grpc"}, {"Content-Type", "application/json; charset=latin1"},
		{"Accept", "application/json"}, {"Accept", "text/html"}, {"Accept", "application/x-protobuf"}, {"Accept", "nonsense"}, {"Accept-Encoding", "gzip"},
		{"Authorization", "nobody.1"}, {"Authorization", "Bearer nobody.1"}, {"Grpc-Metadata-hasleader", "true"}, {"Grpc-Metadata-token", "x"},
		{"Grpc-Metadata-client-api-version", "\xff"}, {"Grpc-Metadata-x-bin", "nonsense!"}, {"Grpc-Timeout", "5S"}, {"Grpc-Timeout", "1n"}, {"Grpc-Timeout", "x"},
		{"Grpc-Timeout", "5"}, {"Grpc-Timeout", "123456789S"}, {"Origin", "http://a.example:80"}, {"X-HTTP-Method-Override", "GET"}, {"Host", "other.example"},
		{"Host", "other.example:1"}, {"X-Forwarded-For", "1.2.3.4"}, {"Connection", "Upgrade", "Upgrade", "h2c"}, {"Te", "trailers"}, {"Expect", "100-continue"},
		{"Cookie", "token=x"}, {"Content-Encoding", "gzip"}, {"Access-Control-Request-Method", "POST"},
	} {
		p.check("header", ask{verb: "POST", path: "/v3/kv/range", body: `{"key":"YQ=="}`, headers: headers})
	}
}

// TestRaw sends what no library sends.
func TestRaw(t *testing.T) {
	t.Parallel()
	p := start(t)
	for _, text := range []string{
		"GET /version HTTP/1.0\r\n\r\n",
		"GET /version HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /version HTTP/1.1\r\n\r\n",
		"GET /version HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"GET version HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET http://x/version HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /version HTTP/1.1\r\nHost: x\r\nBad Header: 1\r\n\r\n",
		"GET /version HTTP/1.1\r\nHost: x\r\nNoColon\r\n\r\n",
		"GET /version HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
		"GET /version HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
		"GET /version HTTP/3.0\r\nHost: x\r\n\r\n",
		"GET /ver sion HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /%zz HTTP/1.1\r\nHost: x\r\n\r\n",
		"nonsense\r\n\r\n",
		"get /version HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\ne\r\n{\"key\":\"YQ==\"}\r\n0\r\n\r\n",
		"POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: nonsense\r\n\r\n",
		"POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"POST /v3/kv/range HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
		"GET /version HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("y", 100_000) + "\r\n\r\n",
		"GET /" + strings.Repeat("y", 100_000) + " HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		ref, sub := both(p, func(s *side) string { return s.raw(text) })
		status := 400
		if strings.Contains(ref, " 200 ") {
			status = 200
		}
		count("raw", status)
		// How an HTTP library words a refusal, or whether it just hangs up, is
		// its own; that it refuses is not.
		if number(ref) != number(sub) {
			p.differs("raw", cut(text), ref, sub)
		}
	}
}

// number is the status number of an answer's first line; every refusal is one.
func number(line string) string {
	fields := strings.Fields(line)
	switch {
	case line == "(closed)" || line == "closed while we wrote":
		return "refused"
	case len(fields) < 2 || !strings.HasPrefix(line, "HTTP/"):
		return line
	case fields[1] >= "400":
		return "refused"
	}
	return fields[1]
}
