package differential

import (
	"bytes"
	"context"
	"fmt"
	"sort"
	"strings"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"milepost.dev/test/compat/differ"
	"milepost.dev/test/compat/harness"
)

func scrape(t *testing.T, side *differ.Side) map[string]*dto.MetricFamily {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	text, err := side.Server.HTTPGet(ctx, "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("%s: /metrics is not in Prometheus's text form: %v", side.Server.Binary.Name, err)
	}
	return families
}

// etcdsOwn tells whether a family is one of etcd's, not of Go or the process.
func etcdsOwn(name string) bool {
	return strings.HasPrefix(name, "etcd_") || strings.HasPrefix(name, "grpc_")
}

// TestMetrics: what is served has etcd's name, type, help and labels, and the
// numbers that follow from the requests alone are etcd's numbers.
func TestMetrics(t *testing.T) {
	pair := startPair(t)
	for i := range 30 {
		put(pair, fmt.Sprintf("k%d", i%7), "v")
	}
	pair.Invoke("delete", method("KV", "DeleteRange"), &pb.DeleteRangeRequest{Key: []byte("k1"), RangeEnd: []byte("k3")}, into[pb.DeleteRangeResponse]())
	pair.Invoke("txn", method("KV", "Txn"), &pb.TxnRequest{Success: []*pb.RequestOp{
		{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("t")}}},
		{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("k0")}}},
	}}, into[pb.TxnResponse]())
	pair.Invoke("lease grant", method("Lease", "LeaseGrant"), &pb.LeaseGrantRequest{ID: 5, TTL: 1000}, into[pb.LeaseGrantResponse]())
	pair.Invoke("lease grant", method("Lease", "LeaseGrant"), &pb.LeaseGrantRequest{ID: 6, TTL: 1000}, into[pb.LeaseGrantResponse]())
	pair.Invoke("lease revoke", method("Lease", "LeaseRevoke"), &pb.LeaseRevokeRequest{ID: 5}, into[pb.LeaseRevokeResponse]())
	pair.Invoke("compact", method("KV", "Compact"), &pb.CompactionRequest{Revision: 20, Physical: true}, into[pb.CompactionResponse]())
	w := pair.OpenWatch("watch", nil)
	createAnd(w, &pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l")})
	createAnd(w, &pb.WatchCreateRequest{Key: []byte("k")})
	put(pair, "k9", "v")
	w.Await("an event", func(log []*pb.WatchResponse) bool { return differ.EventsOf(log, 0) == 1 })

	ref, sub := scrape(t, pair.Ref), scrape(t, pair.Sub)
	var missing []string
	for name, family := range ref {
		if other, ok := sub[name]; !ok && etcdsOwn(name) {
			missing = append(missing, name)
		} else if ok && other.GetType() != family.GetType() {
			pair.Finding("metric", name, family.GetType().String(), other.GetType().String())
		}
	}
	for name, family := range sub {
		other, ok := ref[name]
		switch {
		case !etcdsOwn(name):
		case !ok:
			pair.Finding("metric", name, "not one of etcd's names", "is served")
		case labels(family) != labels(other) && len(other.Metric) > 0 && len(family.Metric) > 0:
			pair.Finding("metric", "labels of "+name, labels(other), labels(family))
		case family.GetHelp() != other.GetHelp():
			pair.Finding("metric", "help of "+name, other.GetHelp(), family.GetHelp())
		}
	}
	for _, name := range missing {
		if notServed[name] == "" {
			pair.Finding("metric", name, "is served", "is not")
		}
	}
	for name := range notServed {
		if sub[name] != nil && !harness.SubjectIsReference(t) {
			t.Errorf("%s is served by now: take it off the list and out of docs/compatibility.md", name)
		}
	}
	t.Logf("%d of etcd's families are not served", len(missing))
	for _, name := range []string{"etcd_server_apply_duration_seconds", "etcd_server_range_duration_seconds", "etcd_server_request_duration_seconds"} {
		buckets(pair, name, ref[name], sub[name])
	}
	for _, name := range []string{
		"etcd_server_has_leader", "etcd_server_is_leader", "etcd_server_is_learner", "etcd_server_leader_changes_seen_total",
		"etcd_mvcc_put_total", "etcd_mvcc_delete_total", "etcd_mvcc_txn_total",
		"etcd_debugging_mvcc_current_revision", "etcd_debugging_mvcc_compact_revision", "etcd_debugging_mvcc_keys_total",
		"etcd_debugging_mvcc_watcher_total", "etcd_debugging_mvcc_watch_stream_total", "etcd_debugging_mvcc_slow_watcher_total",
		"etcd_debugging_lease_granted_total", "etcd_debugging_lease_revoked_total", "etcd_server_quota_backend_bytes",
		"etcd_debugging_mvcc_total_put_size_in_bytes", "etcd_debugging_auth_revision", "etcd_network_known_peers",
	} {
		if sub[name] == nil {
			continue // told above
		}
		if a, b := number(ref[name]), number(sub[name]); a != b {
			pair.Finding("metric", "value of "+name, a, b)
		}
	}
}

// notServed are etcd's families that we lack, and why; docs/compatibility.md
// tells the same.
var notServed = map[string]string{
	"etcd_debugging_disk_backend_commit_rebalance_duration_seconds":    "a part of bbolt's commit",
	"etcd_debugging_disk_backend_commit_spill_duration_seconds":        "a part of bbolt's commit",
	"etcd_debugging_disk_backend_commit_write_duration_seconds":        "a part of bbolt's commit",
	"etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds": "there is no index in memory",
	"etcd_server_go_version": "there is no Go",
}

// buckets compares the bounds of two histograms.
func buckets(pair *differ.Pair, name string, ref, sub *dto.MetricFamily) {
	bounds := func(f *dto.MetricFamily) string {
		var text strings.Builder
		if len(f.GetMetric()) > 0 {
			for _, b := range f.Metric[0].GetHistogram().GetBucket() {
				fmt.Fprintf(&text, "%.6g ", b.GetUpperBound())
			}
		}
		return strings.TrimSuffix(text.String(), "+Inf ")
	}
	if a, b := bounds(ref), bounds(sub); a != b {
		pair.Finding("metric", "buckets of "+name, a, b)
	}
}

// starred are the families that etcd's own dashboard and alerts use, as far
// as a lone member has them.
var starred = []string{
	"etcd_server_has_leader", "etcd_server_leader_changes_seen_total", "etcd_server_proposals_failed_total",
	"etcd_server_proposals_pending", "etcd_server_proposals_committed_total", "etcd_server_proposals_applied_total",
	"etcd_server_quota_backend_bytes", "etcd_mvcc_db_total_size_in_bytes", "etcd_mvcc_db_total_size_in_use_in_bytes",
	"etcd_disk_wal_fsync_duration_seconds", "etcd_disk_backend_commit_duration_seconds",
	"etcd_network_client_grpc_sent_bytes_total", "etcd_network_client_grpc_received_bytes_total",
	"grpc_server_started_total", "grpc_server_handled_total", "grpc_server_handling_seconds",
	"process_resident_memory_bytes",
	// With peers only, as in etcd.
	"etcd_network_peer_round_trip_time_seconds", "etcd_network_peer_sent_failures_total",
	"etcd_network_peer_sent_bytes_total", "etcd_network_peer_received_bytes_total",
}

// TestStarredMetrics: what the dashboard and the alerts need is there, where
// etcd has it, with the same samples.
func TestStarredMetrics(t *testing.T) {
	pair := differ.StartPair(t, harness.Options{NoSync: true, Args: []string{"--metrics=extensive"}})
	put(pair, "k", "v")
	ref, sub := scrape(t, pair.Ref), scrape(t, pair.Sub)
	var absent []string
	for _, name := range starred {
		switch {
		case ref[name] == nil && sub[name] == nil:
			absent = append(absent, name)
		case sub[name] == nil:
			t.Errorf("%s is missing", name)
		case ref[name] == nil:
			t.Errorf("%s is served, and etcd does not", name)
		case sub[name].GetType() != ref[name].GetType() || labels(sub[name]) != labels(ref[name]) || len(sub[name].Metric) != len(ref[name].Metric):
			t.Errorf("%s: %s, labels %s, %d samples; etcd has %s, labels %s, %d samples", name,
				sub[name].GetType(), labels(sub[name]), len(sub[name].Metric), ref[name].GetType(), labels(ref[name]), len(ref[name].Metric))
		default:
			buckets(pair, name, ref[name], sub[name])
		}
	}
	t.Logf("starred metrics that a lone member does not have, in etcd neither: %s", strings.Join(absent, " "))
}

// labels are the label names of a family, without those of buckets.
func labels(f *dto.MetricFamily) string {
	names := map[string]bool{}
	for _, m := range f.Metric {
		for _, l := range m.Label {
			names[l.GetName()] = true
		}
	}
	sorted := make([]string, 0, len(names))
	for name := range names {
		sorted = append(sorted, name)
	}
	sort.Strings(sorted)
	return strings.Join(sorted, ",")
}

func number(f *dto.MetricFamily) string {
	if f == nil {
		return "not served"
	}
	sum := 0.0
	for _, m := range f.Metric {
		sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + m.GetUntyped().GetValue()
	}
	return fmt.Sprint(sum)
}
