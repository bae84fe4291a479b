package ctl

import "testing"

func TestCluster(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.do("put", "k", "v")
	s.all("member", "list")
	s.all("member", "list", "--consistency=s")
	s.squeezed().all("endpoint", "health")
	s.squeezed().all("endpoint", "status")
	s.all("endpoint", "hashkv")
	s.all("endpoint", "hashkv", "--rev", "1")
	s.do("endpoint", "hashkv", "--rev=999")
	for _, what := range []string{"health", "status", "hashkv"} {
		s.do("endpoint", what, "--cluster")
		s.do("endpoint", "--cluster", what, "-w", "json")
		s.with("ETCDCTL_CLUSTER=true").do("endpoint", what)
	}
	s.all("alarm", "list")
	s.all("alarm", "disarm")
	s.do("alarm", "list", "x")
	s.do("alarm", "disarm", "x")
	s.do("defrag")
	s.do("defrag", "--cluster")
	s.do("move-leader")
	s.do("move-leader", "xyz")
	for _, line := range [][]string{
		{"member", "add"}, {"member", "add", "m"}, {"member", "add", "m", "http://h:1", "HTTPS://i:2"},
		{"member", "add", "m", "--peer-urls", "h:1"}, {"member", "add", "m", "--peer-urls=10.0.0.1:1"},
		{"member", "add", "m", "--peer-urls", "http://h"}, {"member", "add", "m", "--peer-urls", "http://h:1/p"},
		{"member", "add", "m", "--peer-urls", "http://h:1,ftp://h:2"},
		{"member", "remove"}, {"member", "remove", "xyz"}, {"member", "remove", "1", "2"},
		{"member", "update"}, {"member", "update", "1"}, {"member", "update", "1", "--peer-urls", "x"},
		{"member", "promote"}, {"member", "promote", "-1"}, {"member", "promote", "xyz"},
		{"downgrade", "validate"}, {"downgrade", "enable"}, {"downgrade", "enable", "3.6.0", "x"},
		{"downgrade", "validate", ""},
	} {
		s.page().do(line...)
	}
	s.end(85)
}

// Membership and downgrades.
func TestClusterChanges(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.do("member", "remove", "77")
	s.do("member", "update", "77", "--peer-urls", "http://127.0.0.1:1")
	s.do("member", "promote", "77")
	s.do("move-leader", "77")
	for _, version := range []string{"3.6.0", "3.6", "3.5.0", "x"} {
		s.do("downgrade", "validate", version)
	}
	s.do("downgrade", "validate", "3.6.0", "-w", "json")
	s.do("downgrade", "validate", "3.6.0", "-w", "fields")
	s.do("downgrade", "validate", "3.6.0", "-w", "protobuf")
	s.do("downgrade", "cancel")

	// A learner has no vote: the cluster of one goes on.
	s.adds("member", "add", "two", "--learner", "--peer-urls=http://127.0.0.1:2,http://127.0.0.1:3")
	s.do("member", "add", "three", "--learner", "--peer-urls=http://127.0.0.1:2")
	for _, format := range [][]string{{}, {"-w=json"}, {"-w=fields"}, {"-w=table"}, {"--hex", "-w=json"}, {"--hex", "-w=fields"}} {
		s.squeezed().unordered().do(append(format, "member", "list")...)
	}
	s.do("member", "promote", "$MEMBER1")
	s.do("member", "update", "$MEMBER1", "--peer-urls=http://127.0.0.1:4")
	s.do("member", "remove", "$MEMBER1")
	s.do("member", "remove", "$MEMBER1")
	s.adds("member", "add", "two", "--learner", "--peer-urls=http://127.0.0.1:5", "-w", "json", "--hex")
	s.do("member", "remove", "$MEMBER2", "-w", "json", "--hex")
	s.adds("member", "add", "two", "--learner", "--peer-urls=http://127.0.0.1:6", "-w", "json")
	s.do("member", "remove", "$MEMBER3", "-w", "fields")
	s.end(28)
}
