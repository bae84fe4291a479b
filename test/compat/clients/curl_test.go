package clients

import (
	"regexp"
	"strings"
	"testing"
)

// TestCurl looks at the pages an operator looks at.
func TestCurl(t *testing.T) {
	curl := need(t, "curl", "run `apt-get install curl`")
	server := start(t)
	get := func(path string) result {
		return run(t, t.TempDir(), "", nil, curl, "--silent", "--show-error", "--max-time", "20", "--write-out", "\n%{http_code}", server.ClientURL+path)
	}
	for path, want := range map[string]string{
		"/health":  `{"health":"true","reason":""}` + "\n200",
		"/version": `{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}` + "\n200",
		"/nothing": "404 page not found\n\n404",
	} {
		if r := get(path); r.out != want {
			t.Errorf("%s: %q, wanted %q %s", path, r.out, want, r.errs)
		}
	}
	metrics := get("/metrics")
	if !strings.HasSuffix(metrics.out, "\n200") {
		t.Fatalf("/metrics: %q %s", metrics.out, metrics.errs)
	}
	for _, pattern := range []string{
		`(?m)^etcd_server_has_leader 1$`,
		`(?m)^etcd_server_is_leader 1$`,
		`(?m)^etcd_server_proposals_committed_total \S+$`,
		`(?m)^etcd_disk_wal_fsync_duration_seconds_count \d+$`,
		`(?m)^etcd_mvcc_db_total_size_in_bytes \S+$`,
		`(?m)^# TYPE etcd_server_has_leader gauge$`,
	} {
		if !regexp.MustCompile(pattern).MatchString(metrics.out) {
			t.Errorf("/metrics has no line like %s", pattern)
		}
	}
}
