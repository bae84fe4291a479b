package gateway

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"
)

func contextFor(d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), d)
}

func b64(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

// TestBodies asks every field of every message, by every spelling that JSON
// has for it.
func TestBodies(t *testing.T) {
	t.Parallel()
	p := start(t)
	// Three keys, one of them rewritten, one deleted.
	for i, key := range []string{"a", "b", "c", "b", "d"} {
		p.check("put", ask{verb: "POST", path: "/v3/kv/put", body: fmt.Sprintf(`{"key":%q,"value":%q}`, b64(key), b64(fmt.Sprint("v", i)))})
	}
	p.check("deleterange", ask{verb: "POST", path: "/v3/kv/deleterange", body: `{"key":"ZA=="}`})
	for _, lease := range []string{`{"ID":"7","TTL":"3600"}`, `{"ID":9,"TTL":3600}`, `{"TTL":"3600"}`, `{"TTL":100000}`} {
		p.check("lease", ask{verb: "POST", path: "/v3/lease/grant", body: lease})
	}
	a, b, c := b64("a"), b64("b"), b64("c")
	for _, group := range []struct {
		kind, path string
		bodies     []string
	}{
		{"range", "/v3/kv/range", []string{
			`{"key":"` + a + `"}`,
			`{"key":"` + a + `","range_end":"` + c + `"}`,
			`{"key":"` + a + `","rangeEnd":"` + c + `"}`,
			`{"key":"AA==","range_end":"AA=="}`,
			`{"key":"` + b64("z") + `"}`,
			`{"key":"` + c + `","range_end":"` + a + `"}`,
			`{"key":"AA==","range_end":"AA==","limit":"1"}`,
			`{"key":"AA==","range_end":"AA==","limit":1}`,
			`{"key":"AA==","range_end":"AA==","limit":1.0}`,
			`{"key":"AA==","range_end":"AA==","limit":1e0}`,
			`{"key":"AA==","range_end":"AA==","limit":-1}`,
			`{"key":"AA==","range_end":"AA==","revision":"4"}`,
			`{"key":"AA==","range_end":"AA==","revision":4}`,
			`{"key":"AA==","range_end":"AA==","revision":"99"}`,
			`{"key":"AA==","range_end":"AA==","revision":"-5"}`,
			`{"key":"AA==","range_end":"AA==","sort_order":"ASCEND","sort_target":"VALUE"}`,
			`{"key":"AA==","range_end":"AA==","sort_order":"DESCEND","sort_target":"MOD"}`,
			`{"key":"AA==","range_end":"AA==","sortOrder":"DESCEND","sortTarget":"CREATE"}`,
			`{"key":"AA==","range_end":"AA==","sort_order":2,"sort_target":0}`,
			`{"key":"AA==","range_end":"AA==","sort_order":"2"}`,
			`{"key":"AA==","range_end":"AA==","sort_order":7}`,
			`{"key":"AA==","range_end":"AA==","sort_target":9}`,
			`{"key":"AA==","range_end":"AA==","sort_order":-1}`,
			`{"key":"AA==","range_end":"AA==","sort_order":1.5}`,
			`{"key":"AA==","range_end":"AA==","sort_order":"descend"}`,
			`{"key":"AA==","range_end":"AA==","sort_order":null}`,
			`{"key":"AA==","range_end":"AA==","sort_order":3000000000}`,
			`{"key":"AA==","range_end":"AA==","serializable":true}`,
			`{"key":"AA==","range_end":"AA==","keys_only":true}`,
			`{"key":"AA==","range_end":"AA==","keysOnly":true,"countOnly":false}`,
			`{"key":"AA==","range_end":"AA==","count_only":true}`,
			`{"key":"AA==","range_end":"AA==","min_mod_revision":"4"}`,
			`{"key":"AA==","range_end":"AA==","max_mod_revision":"4"}`,
			`{"key":"AA==","range_end":"AA==","minCreateRevision":3,"maxCreateRevision":"4"}`,
			`{"key":"` + a + `","key":"` + b + `"}`,
			`{"range_end":"` + a + `","key":"` + b + `","rangeEnd":"` + c + `"}`,
			`{"key":"` + a + `","nothing":1,"nothing_else":{"x":[1,2,{"y":null}]}}`,
			`{"key":null}`,
			`{"key":""}`,
			`{}`,
			`{"key":"YQ"}`,
			`{"key":"YQ="}`,
			`{"key":"_-8="}`,
			`{"key":"/+8="}`,
			`{"key":"_-8"}`,
			`{"key":"YR=="}`,
			`{"key":"Y Q=="}`,
			`{"key":"YQ==\n"}`,
			`{"key":"!"}`,
			`{"key":"Y"}`,
			`{"key":"\u0059Q=="}`,
			`{"k\u0065y":"YQ=="}`,
			` { "key" : "YQ==" } `,
			"\t\n\r{\"key\":\"YQ==\"}\n",
			`{"key":"YQ=="} {"key":"Yg=="}`,
			`{"key":"YQ=="} trailing`,
			`{"key":"YQ=="}}`,
		}},
		{"broken", "/v3/kv/range", []string{
			`{`, `}`, `{"key"`, `{"key":`, `{"key":"YQ=="`, `{"key":"YQ==",}`, `{,"key":"YQ=="}`, `{'key':'YQ=='}`, `{key:"YQ=="}`, `nonsense`, `"text"`, `1`, `true`,
			`[{"key":"YQ=="}]`, `{"key":1}`, `{"key":true}`, `{"key":["YQ=="]}`, `{"key":{"a":1}}`, `{"limit":"x"}`, `{"limit":""}`, `{"limit":true}`, `{"limit":1.5}`,
			`{"limit":"1.5"}`, `{"limit":1e30}`, `{"limit":9223372036854775807}`, `{"limit":9223372036854775808}`, `{"limit":"-9223372036854775808"}`,
			`{"limit":"-9223372036854775809"}`, `{"limit":01}`, `{"limit":+1}`, `{"limit":.5}`, `{"limit":0x10}`, `{"limit":"0x10"}`, `{"limit":" 1"}`, `{"limit":NaN}`,
			`{"limit":Infinity}`, `{"serializable":"true"}`, `{"serializable":1}`, `{"serializable":null}`, `{"sort_order":"NOTHING"}`, `{"sort_order":true}`,
			`{"key":"YQ==","key":`, "{\"key\":\"YQ==\x00\"}", "{\"key\":\"\xff\xfe\"}", "{\"\xff\":1}", "\xff\xfe", "\ufeff{\"key\":\"YQ==\"}", `{"key":"\ud800"}`,
			`{"key":"\x41"}`, `{"key":"YQ==" /* comment */}`, `{"key":"YQ=="} // comment`, `{"a":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`,
			`{"key":undefined}`, `<xml/>`, `key=YQ==`, `{"":1}`, `{"key":"YQ==","limit":"1","limit":"2"}`,
		}},
		{"put", "/v3/kv/put", []string{
			`{"key":"` + a + `","value":"` + b64("new") + `","prev_kv":true}`,
			`{"key":"` + a + `","prevKv":true}`,
			`{"key":"` + a + `","lease":"7"}`,
			`{"key":"` + a + `","lease":7}`,
			`{"key":"` + a + `","lease":"77"}`,
			`{"key":"` + a + `","lease":-1}`,
			`{"key":"` + a + `","ignore_value":true}`,
			`{"key":"` + a + `","ignoreLease":true,"value":"` + b + `"}`,
			`{"key":"` + a + `","ignore_value":true,"value":"` + b + `"}`,
			`{"key":"` + a + `","ignore_lease":true,"lease":7}`,
			`{"key":"` + b64("none") + `","ignore_value":true}`,
			`{"value":"` + b + `"}`,
			`{"key":"` + b64("empty") + `","value":""}`,
			`{"key":"` + b64("null") + `","value":null}`,
			`{"key":"` + b64("big") + `","value":"` + b64(strings.Repeat("x", 1000000)) + `"}`,
			`{"key":"` + b64("big") + `","value":"` + b64(strings.Repeat("x", 1600000)) + `"}`,
			`{"key":"` + b64("big") + `","value":"` + b64(strings.Repeat("x", 3000000)) + `"}`,
			`{"key":"` + b64("big") + `","value":"` + b64(strings.Repeat("x", 12000000)) + `"}`,
		}},
		{"deleterange", "/v3/kv/deleterange", []string{
			`{"key":"` + b64("big") + `"}`, `{"key":"` + b64("null") + `","prev_kv":true}`, `{"key":"` + b64("e") + `","range_end":"` + b64("f") + `","prevKv":true}`,
			`{"key":"` + b64("none") + `"}`, `{}`,
		}},
		{"txn", "/v3/kv/txn", []string{
			`{}`,
			`{"compare":[],"success":[],"failure":[]}`,
			`{"compare":null,"success":null}`,
			`{"success":[{"request_put":{"key":"` + b64("t") + `","value":"` + b64("1") + `"}}]}`,
			`{"success":[{"requestPut":{"key":"` + b64("t") + `","value":"` + b64("2") + `","prevKv":true}}]}`,
			`{"success":[{"request_range":{"key":"` + b64("t") + `"}},{"requestDeleteRange":{"key":"` + b64("t") + `"}}]}`,
			`{"success":[{"request_txn":{"success":[{"request_put":{"key":"` + b64("n") + `"}}]}}]}`,
			`{"compare":[{"key":"` + a + `","target":"VERSION","result":"GREATER","version":"0"}],"success":[{"request_range":{"key":"` + a + `"}}]}`,
			`{"compare":[{"key":"` + a + `","target":0,"result":0,"version":"99"}],"failure":[{"request_range":{"key":"` + b + `"}}]}`,
			`{"compare":[{"key":"` + a + `","target":"CREATE","result":"LESS","create_revision":"99"}]}`,
			`{"compare":[{"key":"` + a + `","target":"MOD","result":"NOT_EQUAL","modRevision":99}]}`,
			`{"compare":[{"key":"` + a + `","target":"VALUE","result":"EQUAL","value":"` + a + `"}]}`,
			`{"compare":[{"key":"` + a + `","target":"LEASE","result":"EQUAL","lease":"0"}]}`,
			`{"compare":[{"key":"` + a + `","target":"VERSION"}]}`,
			`{"compare":[{"key":"` + a + `","target":"VALUE","version":"1"}]}`,
			`{"compare":[{"key":"` + a + `","range_end":"` + c + `","target":"VERSION","result":"GREATER","version":"0"}]}`,
			`{"compare":[{"key":"` + a + `","target":9,"result":9,"version":"0"}]}`,
			`{"compare":[{"key":"` + a + `","version":"1","value":"` + a + `"}]}`,
			`{"compare":[{"target":"VERSION"}]}`,
			`{"compare":[{}]}`, `{"compare":[null]}`, `{"compare":{}}`, `{"compare":["x"]}`,
			`{"success":[{}]}`, `{"success":[null]}`, `{"success":{}}`,
			`{"success":[{"request_put":{"key":"` + a + `"},"request_range":{"key":"` + a + `"}}]}`,
			`{"success":[{"request_put":null}]}`, `{"success":[{"request_put":{}}]}`, `{"success":[{"nothing":{}}]}`,
			`{"success":[{"request_put":{"key":"` + a + `"}},{"request_put":{"key":"` + a + `"}}]}`,
			`{"success":[` + strings.Repeat(`{"request_range":{"key":"YQ=="}},`, 128) + `{"request_range":{"key":"YQ=="}}]}`,
			`{"success":[` + strings.Repeat(`{"request_txn":{"success":[`, 30) + `{"request_range":{"key":"YQ=="}}` + strings.Repeat(`]}}`, 30) + `]}`,
		}},
		{"lease", "/v3/lease/grant", []string{
			`{"ID":"7","TTL":"100"}`, `{"TTL":"-1","ID":"70"}`, `{"TTL":"0","ID":"71"}`, `{"TTL":"9000000001","ID":"72"}`, `{"ID":-5,"TTL":3600}`, `{"id":"73","ttl":"3600"}`, `{"TTL":"x"}`,
		}},
		{"lease", "/v3/lease/timetolive", []string{`{"ID":"7"}`, `{"ID":7,"keys":true}`, `{"ID":"404"}`, `{"id":"7"}`}},
		{"lease", "/v3/kv/lease/timetolive", []string{`{"ID":"7","keys":true}`}},
		{"lease", "/v3/lease/keepalive", []string{`{"ID":"9"}`, `{"ID":"404"}`, `{"ID":"9"}{"ID":"404"}` + "\n" + `{"ID":9}`, ``}},
		{"lease", "/v3/lease/revoke", []string{`{"ID":"9"}`, `{"ID":"9"}`, `{}`}},
		{"lease", "/v3/kv/lease/revoke", []string{`{"ID":"-5"}`, `{"ID":-5}`}},
		{"compact", "/v3/kv/compaction", []string{`{"revision":"5"}`, `{"revision":"5"}`, `{"revision":6,"physical":true}`, `{"revision":"999"}`, `{"revision":"-1"}`}},
		{"range", "/v3/kv/range", []string{`{"key":"` + a + `","revision":"3"}`}},
		{"alarm", "/v3/maintenance/alarm", []string{
			`{}`, `{"action":"GET"}`, `{"action":"ACTIVATE","alarm":"NONE"}`, `{"action":"ACTIVATE","memberID":"1","alarm":"NOSPACE"}`, `{"action":0,"alarm":1}`,
		}},
		{"put", "/v3/kv/put", []string{`{"key":"` + a + `"}`}},
		{"alarm", "/v3/maintenance/alarm", []string{`{"action":"DEACTIVATE","memberID":1,"alarm":"NOSPACE"}`, `{"action":"GET","alarm":2}`, `{"action":"NOTHING"}`}},
		{"maintain", "/v3/maintenance/hashkv", []string{`{}`, `{"revision":"8"}`, `{"revision":"2"}`, `{"revision":999}`}},
		{"maintain", "/v3/maintenance/status", []string{`{}`}},
		{"maintain", "/v3/maintenance/hash", []string{`{}`}},
		{"maintain", "/v3/maintenance/defragment", []string{`{}`}},
		{"maintain", "/v3/cluster/member/list", []string{`{}`, `{"linearizable":true}`, `{"linearizable":"x"}`}},
		{"maintain", "/v3/auth/status", []string{`{}`}},
	} {
		for _, body := range group.bodies {
			p.check(group.kind, ask{verb: "POST", path: group.path, body: body})
		}
	}
	// Spellings of whole numbers that Go's decoder takes and ours does not, and
	// lists deeper than any decoder follows: refused, whatever with.
	for _, body := range []string{
		`{"key":"AA==","limit":"1e0"}`, `{"key":"AA==","sort_order":2.0}`, `{"a":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `}`,
	} {
		ref, sub := both(p, func(s *side) answer {
			ctx, cancel := contextFor(askWithin)
			defer cancel()
			return s.ask(ctx, ask{verb: "POST", path: "/v3/kv/range", body: body})
		})
		count("strict", ref.status)
		if !p.same && (sub.status != 400 || !strings.Contains(sub.body, `"code":3`)) {
			p.differs("strict", cut(body), fmt.Sprint(ref.status, ref.body), fmt.Sprint(sub.status, sub.body))
		}
	}
	// Where a stream's request cannot be read, etcd ends without a word. Ours
	// says what is wrong with it.
	for _, body := range []string{`{"ID":"x"}`, `nonsense`, `[]`} {
		ref, sub := both(p, func(s *side) answer {
			ctx, cancel := contextFor(askWithin)
			defer cancel()
			return s.ask(ctx, ask{verb: "POST", path: "/v3/lease/keepalive", body: body})
		})
		count("unread", ref.status)
		if ref.body != "" || !p.same && (sub.status != 400 || !strings.Contains(sub.body, `"error":`)) {
			p.differs("unread", body, fmt.Sprint(ref.status, ref.body), fmt.Sprint(sub.status, sub.body))
		}
	}
}

// TestLocks goes through the Lock and Election services by JSON.
func TestLocks(t *testing.T) {
	t.Parallel()
	p := start(t)
	post := func(path, body string) answer {
		return p.check("lock", ask{verb: "POST", path: path, body: body})
	}
	post("/v3/lease/grant", `{"ID":"11","TTL":"3600"}`)
	post("/v3/lease/grant", `{"ID":"12","TTL":"3600"}`)
	name, value := b64("name"), b64("value")
	post("/v3/lock/lock", `{"name":"`+name+`","lease":"11"}`)
	post("/v3/lock/lock", `{"name":"`+name+`","lease":"11"}`)
	post("/v3/lock/lock", `{"name":"`+name+`","lease":"404"}`)
	for _, path := range []string{"/v3/lock/lock", "/v3/election/campaign"} {
		post(path, `[]`)
		post(path, `{"lease":"404"}`)
	}
	post("/v3/lock/unlock", `{"key":"`+b64("name/b")+`"}`)
	post("/v3/lock/unlock", `{"key":"`+b64("name/b")+`"}`)
	post("/v3/lock/lock", `{"name":"`+name+`","lease":"12"}`)
	post("/v3/election/leader", `{"name":"`+b64("e")+`"}`)
	won := post("/v3/election/campaign", `{"name":"`+b64("e")+`","lease":"11","value":"`+value+`"}`)
	if won.status != 200 {
		t.Fatalf("the reference elects nobody: %v", won)
	}
	post("/v3/election/campaign", `{"name":"`+b64("e")+`","lease":"11","value":"`+value+`"}`)
	post("/v3/election/campaign", `{"name":"`+b64("e")+`","lease":"404","value":"`+value+`"}`)
	post("/v3/election/leader", `{"name":"`+b64("e")+`"}`)
	leader := post("/v3/kv/range", `{"key":"`+b64("e/b")+`"}`)
	rev := between(leader.body, `"create_revision":`, `,`)
	key := `{"name":"` + b64("e") + `","key":"` + b64("e/b") + `","rev":` + rev + `,"lease":"11"}`
	post("/v3/election/proclaim", `{"leader":`+key+`,"value":"`+b64("other")+`"}`)
	post("/v3/election/proclaim", `{"leader":{"name":"`+b64("e")+`","key":"`+b64("e/x")+`","rev":"1","lease":"11"},"value":"`+value+`"}`)
	post("/v3/election/proclaim", `{"value":"`+value+`"}`)
	post("/v3/election/leader", `{"name":"`+b64("e")+`"}`)
	post("/v3/election/resign", `{"leader":`+key+`}`)
	post("/v3/election/resign", `{"leader":`+key+`}`)
	post("/v3/election/resign", `{}`)
	post("/v3/election/leader", `{"name":"`+b64("e")+`"}`)
	post("/v3/kv/range", `{"key":"AA==","range_end":"AA=="}`)
}

func between(text, from, to string) string {
	_, rest, _ := strings.Cut(text, from)
	found, _, _ := strings.Cut(rest, to)
	return strings.TrimSpace(found)
}
