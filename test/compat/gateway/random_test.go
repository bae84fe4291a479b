package gateway

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"milepost.dev/test/compat/harness"
)

// writer draws valid requests, each in a spelling of its own: proto or lower
// camel names, numbers bare or as strings, enums by name or number, fields in
// any order, defaults given or left out.
type writer struct{ r *rand.Rand }

func (w writer) pick(options ...string) string { return options[w.r.IntN(len(options))] }

func (w writer) chance(percent int) bool { return w.r.IntN(100) < percent }

// name spells a field.
func (w writer) name(proto string) string {
	if w.chance(50) {
		return proto
	}
	parts := strings.Split(proto, "_")
	for i := 1; i < len(parts); i++ {
		parts[i] = strings.ToUpper(parts[i][:1]) + parts[i][1:]
	}
	return strings.Join(parts, "")
}

func (w writer) number(n int64) any {
	if w.chance(50) {
		return n
	}
	return fmt.Sprint(n)
}

func (w writer) enum(n int, names ...string) any {
	if w.chance(30) {
		return n
	}
	return names[n]
}

func (w writer) key() []byte {
	return []byte(w.pick("a", "aa", "ab", "b", "ba", "c", "\x00", "\xff", "d/1", "d/2"))
}

// object is a message under construction: fields are left out at random.
type object map[string]any

func (w writer) maybe(o object, percent int, field string, value any) {
	if w.chance(percent) {
		o[w.name(field)] = value
	}
}

// scope puts a key and perhaps a range into a message.
func (w writer) scope(o object) object {
	o["key"] = w.key()
	switch w.r.IntN(5) {
	case 0:
		o[w.name("range_end")] = w.key()
	case 1:
		o[w.name("range_end")] = []byte{0}
	}
	return o
}

func (w writer) rangeRequest() object {
	o := w.scope(object{})
	w.maybe(o, 20, "limit", w.number(int64(w.r.IntN(4))))
	w.maybe(o, 20, "revision", w.number(int64(w.r.IntN(60))))
	if w.chance(30) {
		// Sorting by the key alone leaves no ties.
		o[w.name("sort_order")] = w.enum(w.r.IntN(3), "NONE", "ASCEND", "DESCEND")
		w.maybe(o, 50, "sort_target", w.enum(0, "KEY"))
	}
	w.maybe(o, 20, "serializable", w.chance(50))
	w.maybe(o, 15, "keys_only", w.chance(50))
	w.maybe(o, 10, "count_only", w.chance(50))
	w.maybe(o, 10, "min_mod_revision", w.number(int64(w.r.IntN(40))))
	w.maybe(o, 10, "max_create_revision", w.number(int64(w.r.IntN(60))))
	return o
}

func (w writer) putRequest() object {
	o := object{"key": w.key()}
	w.maybe(o, 90, "value", []byte(w.pick("", "x", "longer value", "\x00\x01\xff", strings.Repeat("z", 3000))))
	w.maybe(o, 15, "lease", w.number(int64(w.r.IntN(3))))
	w.maybe(o, 30, "prev_kv", w.chance(60))
	w.maybe(o, 8, "ignore_lease", w.chance(50))
	return o
}

func (w writer) deleteRequest() object {
	o := w.scope(object{})
	w.maybe(o, 40, "prev_kv", w.chance(60))
	return o
}

func (w writer) txnRequest(depth int) object {
	o := object{}
	var compares []object
	for range w.r.IntN(3) {
		c := object{"key": w.key(), "result": w.enum(w.r.IntN(4), "EQUAL", "GREATER", "LESS", "NOT_EQUAL")}
		switch w.r.IntN(5) {
		case 0:
			c["target"], c["version"] = w.enum(0, "VERSION"), w.number(int64(w.r.IntN(4)))
		case 1:
			c["target"], c[w.name("create_revision")] = w.enum(1, "", "CREATE"), w.number(int64(w.r.IntN(50)))
		case 2:
			c["target"], c[w.name("mod_revision")] = w.enum(2, "", "", "MOD"), w.number(int64(w.r.IntN(50)))
		case 3:
			c["target"], c["value"] = w.enum(3, "", "", "", "VALUE"), []byte(w.pick("", "x", "longer value"))
		case 4:
			c["target"], c["lease"] = w.enum(4, "", "", "", "", "LEASE"), w.number(int64(w.r.IntN(3)))
		}
		compares = append(compares, c)
	}
	if compares != nil {
		o["compare"] = compares
	}
	for _, branch := range []string{"success", "failure"} {
		var ops []object
		for range w.r.IntN(4) {
			switch w.r.IntN(4) {
			case 0:
				ops = append(ops, object{w.name("request_range"): w.rangeRequest()})
			case 1:
				ops = append(ops, object{w.name("request_put"): w.putRequest()})
			case 2:
				ops = append(ops, object{w.name("request_delete_range"): w.deleteRequest()})
			case 3:
				if depth > 0 {
					ops = append(ops, object{w.name("request_txn"): w.txnRequest(depth - 1)})
				}
			}
		}
		if ops != nil {
			o[branch] = ops
		}
	}
	return o
}

// TestRandom puts random valid requests.
func TestRandom(t *testing.T) {
	t.Parallel()
	seed := uint64(harness.IntEnv(t, "COMPAT_SEED", int(time.Now().UnixNano())))
	t.Logf("COMPAT_SEED=%d", seed)
	w := writer{rand.New(rand.NewPCG(seed, 0))}
	p := start(t)
	p.check("random", ask{verb: "POST", path: "/v3/lease/grant", body: `{"ID":1,"TTL":3600}`})
	rounds := harness.IntEnv(t, "COMPAT_GATEWAY_OPS", 600)
	for range rounds {
		var path string
		var request object
		switch n := w.r.IntN(100); {
		case n < 30:
			path, request = "/v3/kv/put", w.putRequest()
		case n < 60:
			path, request = "/v3/kv/range", w.rangeRequest()
		case n < 70:
			path, request = "/v3/kv/deleterange", w.deleteRequest()
		case n < 95:
			path, request = "/v3/kv/txn", w.txnRequest(2)
		case n < 97:
			path, request = "/v3/lease/timetolive", object{"ID": w.number(int64(w.r.IntN(3))), "keys": true}
		default:
			path, request = "/v3/maintenance/hashkv", object{"revision": w.number(int64(w.r.IntN(30)))}
		}
		body, err := json.Marshal(request)
		if err != nil {
			t.Fatal(err)
		}
		p.check("random", ask{verb: "POST", path: path, body: string(body)})
		if t.Failed() {
			t.Fatalf("after the first difference every later one follows; COMPAT_SEED=%d repeats this", seed)
		}
	}
}
