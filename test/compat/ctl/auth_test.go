package ctl

import "testing"

// Users, roles, permissions: our server has none of these so far.
func TestUsersAndRoles(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	do := func(args ...string) { s.tool().do(args...) }
	s.all("auth", "status")
	s.tool().all("user", "list")
	s.tool().all("role", "list")
	do("user", "add", "root:secret")
	do("user", "add", "root:secret")
	do("user", "add", "anna", "--new-user-password", "x:y")
	do("user", "add", "cert", "--no-password", "-w", "json")
	s.tool().stdin("word rest\n").do("user", "add", "piped", "--interactive=false")
	s.tool().stdin("again\n").do("user", "passwd", "piped", "--interactive=false")
	do("user", "add", ":x")
	do("user", "add", "")
	do("user", "delete", "nobody")
	do("role", "add", "reader")
	do("role", "add", "reader")
	do("role", "add", "writer", "-w", "fields")
	do("role", "add", "")
	do("role", "grant-permission", "reader", "read", "k")
	do("role", "grant-permission", "reader", "READ", "a", "b")
	do("role", "grant-permission", "reader", "readwrite", "pre", "--prefix")
	do("role", "grant-permission", "reader", "write", "from", "--from-key")
	do("role", "grant-permission", "reader", "write", "", "--prefix", "-w", "json")
	do("role", "grant-permission", "reader", "write", "")
	do("role", "grant-permission", "nobody", "write", "k")
	do("role", "grant-permission", "reader", "write", "z", "a")
	s.tool().all("role", "get", "reader")
	s.tool().all("role", "get", "root")
	s.tool().all("role", "get", "nobody")
	s.tool().all("role", "list")
	do("role", "revoke-permission", "reader", "k")
	do("role", "revoke-permission", "reader", "a", "b")
	do("role", "revoke-permission", "reader", "from", "--from-key")
	do("role", "revoke-permission", "reader", "pre", "--prefix", "-w", "fields")
	do("role", "revoke-permission", "reader", "none")
	do("role", "revoke-permission", "reader", "", "--prefix")
	do("user", "grant-role", "anna", "reader")
	do("user", "grant-role", "anna", "writer", "-w", "json")
	do("user", "grant-role", "anna", "nobody")
	s.tool().all("user", "get", "anna")
	s.tool().all("user", "get", "nobody")
	do("user", "get", "anna", "--detail")
	do("user", "get", "anna", "--detail", "-w", "json")
	do("user", "revoke-role", "anna", "writer")
	do("user", "revoke-role", "anna", "writer")
	do("user", "delete", "cert")
	for _, line := range [][]string{
		{"user", "add"}, {"user", "delete"}, {"user", "get"}, {"user", "list", "x"}, {"user", "passwd"},
		{"user", "grant-role", "a"}, {"user", "revoke-role", "a"},
		{"role", "add"}, {"role", "delete"}, {"role", "get"}, {"role", "list", "x"},
		{"role", "grant-permission", "r", "read"}, {"role", "grant-permission", "r", "all", "k"},
		{"role", "grant-permission", "r", "read", "k", "e", "--prefix"},
		{"role", "grant-permission", "r", "read", "k", "e", "--from-key"},
		{"role", "grant-permission", "r", "read", "k", "--prefix", "--from-key"},
		{"role", "grant-permission", "r", "read", "", "--prefix", "--from-key"},
		{"role", "revoke-permission", "r"},
		{"auth", "enable", "x"}, {"auth", "disable", "x"}, {"auth", "status", "x"},
	} {
		s.do(line...)
	}

	do("auth", "enable")
	do("get", "k")
	do("--user", "root:secret", "auth", "status")
	do("--user=root", "--password=secret", "put", "k", "v")
	do("--user", "root:wrong", "get", "k")
	do("--user", "nobody:x", "get", "k")
	do("--user", "anna:x:y", "get", "k")
	do("--user", "anna", "--password", "x:y", "put", "from", "x")
	s.tool().with("ETCDCTL_USER=root:secret").do("endpoint", "health")
	do("endpoint", "health")
	do("--user", "anna:x:y", "endpoint", "health")
	do("--user", "anna:x:y", "user", "list")
	do("--auth-jwt-token", "nonsense", "get", "k")
	do("--user", "root:secret", "auth", "disable")
	do("auth", "disable")
	s.end(140)
}
