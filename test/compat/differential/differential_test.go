// Package differential asks etcd and the server under test the same generated
// questions, one after the other, and demands the same answers.
package differential

import (
	"os"
	"strconv"
	"testing"
	"time"

	"milepost.dev/test/compat/differ"
	"milepost.dev/test/compat/harness"
)

// kinds is what the generated run asks, with shares that sum to 1000.
var kinds = []kind{
	{"range", 190, 100, 8, askRange},
	{"range invalid", 14, 0, 5, askRangeInvalid},
	{"range stream", 55, 25, 6, askRangeStream},
	{"range stream invalid", 10, 0, 4, askRangeStreamInvalid},
	{"put", 230, 150, 2, askPut},
	{"put invalid", 15, 0, 5, askPutInvalid},
	{"delete", 60, 30, 0, askDelete},
	{"delete invalid", 5, 0, 1, askDeleteInvalid},
	{"txn", 170, 60, 5, askTxn},
	{"txn read only", 40, 10, 1, askTxnRead},
	{"txn invalid", 40, 3, 12, askTxnInvalid},
	{"compact", 6, 1, 0.4, askCompact},
	{"lease grant", 22, 8, 1, askLeaseGrant},
	{"lease revoke", 18, 3, 2, askLeaseRevoke},
	{"lease time to live", 20, 10, 0, askLeaseTimeToLive},
	{"lease keep alive", 10, 4, 0, askLeaseKeepAlive},
	{"lease list", 6, 2, 0, askLeaseLeases},
	{"hash kv", 22, 8, 0.4, askHashKV},
	{"hash", 3, 0.5, 0, askHash},
	{"watch create", 22, 8, 0, askWatchCreate},
	{"watch invalid", 6, 1.5, 0, askWatchInvalid},
	{"watch cancel", 8, 2, 0, askWatchCancel},
	{"watch progress", 4, 1, 0, askWatchProgress},
	{"status", 4, 1, 0, askStatus},
	{"alarm", 5, 1, 0, askAlarm},
	{"member list", 4, 1, 0, askMemberList},
	{"auth status", 3, 0.5, 0, askAuthStatus},
	{"health", 3, 0.4, 0, askHealth},
	{"unknown method", 3, 0, 0.5, askUnknown},
	{"metadata", 2, 0.1, 0, askMetadata},
}

// TestGenerated is the main run. COMPAT_SEED and COMPAT_OPS choose it; without
// a seed the clock does, and the log tells which one it was.
func TestGenerated(t *testing.T) {
	seed := seedFromEnv(t)
	ops := harness.IntEnv(t, "COMPAT_OPS", 6000)
	t.Logf("replay with: COMPAT_SEED=%d COMPAT_OPS=%d go test ./differential -run TestGenerated", seed, ops)
	pair := differ.StartPair(t, harness.Options{NoSync: true})
	g := newGenerator(pair, seed)
	total := 0
	for _, k := range kinds {
		total += k.perMille
	}
	if total != 1000 {
		t.Fatalf("the shares sum to %d, not 1000", total)
	}
	for range ops {
		k := g.nextKind()
		k.ask(g, k.name)
	}
	g.watch.settle()
	t.Logf("seed %d, %d questions, revision %d, compacted %d\n%s", seed, ops, g.revision, g.compacted, pair.Table)
	for _, stream := range []*differ.WatchPair{g.watch.history, g.watch.present, g.watch.ahead} {
		same, other := stream.Frames()
		t.Logf("groups of watch replies cut alike: %d, otherwise: %d", same, other)
		if other > 3+same/20 {
			t.Errorf("%d groups of watch replies are cut otherwise than etcd's, and only %d alike", other, same)
		}
	}
	var floors []differ.Floor
	for _, k := range kinds {
		floors = append(floors, differ.Floor{
			Kind: k.name, OK: int(k.okFloor * float64(ops) / 1000), Failed: int(k.noFloor * float64(ops) / 1000),
		})
	}
	for _, complaint := range pair.Table.Below(floors) {
		t.Error("below the floor: " + complaint)
	}
}

func (g *generator) nextKind() kind {
	n := g.IntN(1000)
	for _, k := range kinds {
		if n -= k.perMille; n < 0 {
			return k
		}
	}
	panic("shares are checked to sum to 1000")
}

func seedFromEnv(t *testing.T) uint64 {
	t.Helper()
	text := os.Getenv("COMPAT_SEED")
	if text == "" {
		return uint64(time.Now().UnixNano())
	}
	seed, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("COMPAT_SEED: %v", err)
	}
	return seed
}
