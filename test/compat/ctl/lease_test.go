package ctl

import "testing"

func TestLeases(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.do("lease", "list")
	s.do("lease", "list", "-w", "json")
	s.grants("lease", "grant", "1000")
	s.all("lease", "list")
	s.do("put", "with", "lease", "--lease=$LEASE1")
	s.all("lease", "timetolive", "$LEASE1")
	// With one key only: etcd tells several in any order.
	s.all("lease", "timetolive", "--keys", "$LEASE1")
	s.do("put", "with", "lease", "--lease", "$LEASE1", "--prev-kv", "-w", "json")
	for _, format := range [][]string{{}, {"-w=json"}, {"-w=fields"}, {"-w=fields", "--hex"}} {
		s.do(append(format, "get", "with")...)
	}
	s.stdin("\nput with new --lease=$LEASE1\n\n\n").do("txn")
	s.do("lease", "revoke", "$LEASE1")
	s.do("get", "with")
	s.do("lease", "revoke", "$LEASE1")
	s.all("lease", "timetolive", "$LEASE1", "--keys")
	s.grants("lease", "grant", "500", "-w", "json")
	s.do("lease", "revoke", "$LEASE2", "-w", "json")
	s.grants("-w", "fields", "lease", "grant", "500")
	s.do("-w", "fields", "lease", "revoke", "$LEASE3")
	s.grants("-w", "fields", "--hex", "lease", "grant", "500")
	s.do("-w", "protobuf", "lease", "revoke", "$LEASE4")
	s.do("lease", "grant", "-w", "table", "10")
	for _, line := range [][]string{
		{"lease", "grant"}, {"lease", "grant", "x"}, {"lease", "grant", "1", "2"},
		{"lease", "grant", "9000000001"}, {"lease", "grant", "--", "-5"},
		{"lease", "revoke"}, {"lease", "revoke", "zz"}, {"lease", "revoke", "77"}, {"lease", "revoke", "0"},
		{"lease", "timetolive"}, {"lease", "timetolive", "zz"}, {"lease", "timetolive", "1", "2"},
		{"put", "k", "v", "--lease", "77"}, {"put", "k", "v", "--lease", "-1"},
	} {
		s.page().do(line...)
	}
	s.end(50)
}
