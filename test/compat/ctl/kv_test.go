package ctl

import "testing"

func TestKeys(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	for _, key := range []string{"a", "a/1", "a/2", "b", "é\"\n", "<&>"} {
		s.do("put", key, "value of "+key)
	}
	s.do("put", "a/1", "second")
	s.do("put", "binary\xff", "\x01\x02\xfe")
	s.all("get", "a/1")
	s.all("get", "nothing")
	s.all("get", "binary\xff")
	s.all("get", "", "--prefix")
	s.all("get", "a", "--prefix", "--keys-only")
	s.all("get", "a", "--prefix", "--limit", "1")
	s.do("get", "a", "b")
	s.do("get", "a", "b", "ignored")
	s.do("get", "a/2", "--from-key")
	s.do("get", "", "--from-key", "-w", "json")
	s.do("get", "", "--from-key", "--count-only", "-w=fields")
	for _, order := range []string{"ASCEND", "descend"} {
		for _, by := range []string{"CREATE", "KEY", "modify", "VALUE", "VERSION"} {
			s.do("get", "a", "--prefix", "--order", order, "--sort-by", by, "-wfields")
		}
	}
	s.do("get", "a/1", "--rev", "3")
	s.do("get", "a/1", "--rev=999")
	s.do("get", "a/1", "--rev=-3")
	s.do("get", "a", "--prefix", "--min-create-rev", "3", "--max-create-rev=5")
	s.do("get", "a", "--prefix", "--min-mod-rev=4", "--max-mod-rev=9", "-w", "json")
	s.do("get", "a", "--prefix", "--consistency=s", "--print-value-only")
	s.do("get", "a", "--prefix", "--stream", "-w", "json")
	s.do("get", "--stream", "a", "--prefix", "--keys-only")
	s.do("get", "--stream", "a", "--prefix", "--order=DESCEND")
	s.do("get", "--stream", "")

	s.all("put", "p", "v", "--prev-kv")
	s.do("put", "p", "--ignore-value", "--prev-kv")
	s.do("put", "absent", "--ignore-value")
	s.do("put", "p", "x", "--ignore-lease")
	s.do("put", "absent", "x", "--ignore-lease")
	s.stdin("from stdin\n").do("put", "p")
	s.do("get", "p")
	s.do("put", "", "v")
	s.do("put", "p", "")
	s.do("put", "p", "one", "two", "three")
	s.do("put", "--", "-minus", "--value")
	s.do("put", "key", "--", "-1")
	s.do("get", "--", "-minus")
	s.do("put", "p", "v", "--lease", "12345")

	s.do("del", "b", "--prev-kv", "-w", "json")
	s.do("del", "b")
	s.do("del", "a/", "--prefix", "--prev-kv", "-w=fields")
	s.do("put", "c1", "1")
	s.do("put", "c2", "2")
	s.do("del", "c1", "c9", "--range", "--prev-kv")
	s.do("del", "c", "d")
	s.do("del", "z", "--from-key")
	s.do("del", "")
	s.do("del", "", "--prefix")

	s.do("compaction", "5")
	s.do("compaction", "5")
	s.do("get", "a", "--rev", "2")
	s.do("compaction", "--physical", "8")
	s.do("compaction", "100000")
	s.do("compaction", "-w", "json", "9")
	s.end(100)
}

func TestMistakesWithKeys(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	for _, line := range [][]string{
		{"put"}, {"put", "k"}, {"put", "k", "v", "--lease", "zz"}, {"put", "k", "v", "--lease="},
		{"put", "k", "v", "--ignore-value"},
		{"get"}, {"get", "a", "b", "--prefix"}, {"get", "a", "b", "--from-key"},
		{"get", "a", "--prefix", "--from-key"}, {"get", "a", "--keys-only", "--count-only"},
		{"get", "a", "--count-only"}, {"get", "a", "--print-value-only", "-w", "json"},
		{"get", "a", "--order", "up"}, {"get", "a", "--sort-by", "size"}, {"get", "a", "--consistency", "x"},
		{"get", "a", "--min-create-rev", "5", "--max-create-rev", "4"},
		{"get", "a", "--min-mod-rev", "5", "--max-mod-rev", "4"},
		{"del"}, {"del", "a", "b", "c"}, {"del", "a", "--prefix", "--from-key"}, {"del", "a", "b", "--prefix"},
		{"compaction"}, {"compaction", "x"}, {"compaction", "1", "2"}, {"compaction", "9223372036854775808"},
		{"compaction", "-1"}, {"compaction", "--", "-1"},
		{"-w", "xml", "get", "a"}, {"-w=", "get", "a"},
	} {
		s.do(line...)
	}
	s.end(29)
}

func TestTransactions(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.do("put", "k", "v")
	all := "val(\"k\") = \"v\"\nmod(\"k\") > \"0\"\nc(\"k\") != \"0\"\nver(\"k\") < \"100\"\nversion(`k`) > \"0\" rest\n\n" +
		"put k \"a \\\"b\\\" \\x41\" --prev-kv\nget k -w simple\n\nput never 'mind'\n\n"
	// A flag of the tool is none of a request.
	s.stdin(all).do("txn")
	good := "val(\"k\") = \"v\"\n\nget k\nput other 'x y'\nget --prefix o\ndel nothing\n\nget k\n\n"
	for _, format := range formats {
		s.stdin(good).do(append([]string{"txn"}, format...)...)
	}
	s.stdin(good).do("txn", "-i")
	s.stdin("\n\n\n").do("txn")
	s.stdin("mod(\"k\") = \"0\"\n\nput a b\n\ndel k --prev-kv\nget k\n\n").do("txn", "-w", "json")
	s.stdin("\nput k 1\nput k 2\n\n\n").do("txn")
	s.stdin("\nput k 1\ndel --prefix k\n\n\n").do("txn")
	s.stdin("\np abbreviated 1\ng abbreviated\n\n\n").do("txn")
	s.stdin("\ndel a b --range\n\n\n").do("txn")
	for _, bad := range []string{
		"", "\n", "\n\n", "mod(\"k\") = \"0\"", "mod k\n\n\n\n", "mod(\"k\")= \"0\"\n\n\n\n", "mod(\"k\") ='0'\n",
		"mod(\"k\") = 0\n\n\n\n", "mod(k) = \"0\"\n\n\n\n", "foo(\"k\") = \"0\"\n\n\n\n", "ver(\"k\") = \"x\"\n\n\n\n",
		"(\"k\") = \"0\"\n", "mod( \"k\" ) = \"0\"\n", "mod(\"k\"\n",
		"\nput\n\n\n", "\nput k\n\n\n", "\nfoo k v\n\n\n", "\nput \"a\\q\" b\n\n\n", "\nget a --prefix --from-key\n\n\n",
		"\nput k v --lease x\n\n\n", "\nget k --limit x\n\n\n", "\nput k v --bogus\n\n\n", "\ndel a b c\n\n\n",
		"\nget \"\" x\n\n\n",
	} {
		s.stdin(bad).do("txn")
	}
	s.do("txn", "x")
	s.end(40)
}
