package ctl

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// mask is something that two runs cannot have in common, and what stands for
// it in the comparison.
type mask struct {
	what *regexp.Regexp
	by   string
}

func masks(pairs ...string) []mask {
	var all []mask
	for i := 0; i < len(pairs); i += 2 {
		all = append(all, mask{regexp.MustCompile(pairs[i]), pairs[i+1]})
	}
	return all
}

var (
	// Log lines: when, from where in whose source, over which connection.
	logMasks = masks(
		`"ts":"[^"]*"`, `"ts":T`,
		`"caller":"[^"]*"`, `"caller":C`,
		`"peer":"[^"]*"`, `"peer":P`,
		`etcd-endpoints://0x[0-9a-f]+/`, `etcd-endpoints://X/`,
		`,"stacktrace":"[^"]*"`, ``,
	)
	// How long something took.
	timeMasks = masks(`\b[0-9.]+(ns|µs|ms|s)\b`, `D`)
	// What is left of a lease, and what two stores cannot have in common:
	// sizes, and Raft's positions.
	stateMasks = masks(
		`remaining\([0-9]+s\)`, `remaining(N)`,
		`"ttl":[0-9]+,"granted`, `"ttl":N,"granted`,
		`("TTL" :) [0-9]+\n("GrantedTTL")`, "$1 N\n$2",
		`"(dbSize|dbSizeInUse|raftIndex|raftAppliedIndex|raftTerm|raft_term)":[0-9]+`, `"$1":N`,
		`"(DBSize|DBSizeInUse|RaftIndex|RaftAppliedIndex|RaftTerm)" : [0-9]+`, `"$1" : N`,
	)
	// The columns of `endpoint status` that hold the same: two sizes, what
	// part of them is unused, term and two indexes.
	statusRow = regexp.MustCompile(
		`(, 3\.\d\.\d+, 3\.\d\.\d+), [^,]*, [^,]*, \d+%(, [^,]*, \w+, \w+), \d+, \d+, \d+`)
	statusCells = regexp.MustCompile(
		`(│ 3\.\d\.\d+ │ 3\.\d\.\d+) │ [^│]* │ [^│]* │ \d+% (│ [^│]* │ \w+ │ \w+) │ \d+ │ \d+ │ \d+`)
	// A young server of etcd does not know its storage version yet when it
	// reads it for a snapshot. Sizes are two stores' own.
	snapshotMasks = masks(
		`Server version 3\.7\.0\n`, ``,
		`"size":"[^"]*","took":"D","etcd-version":"(3\.7\.0)?"`, `"size":S,"took":D,"etcd-version":V`,
	)
	// Spaces between the fields of a message that Go prints: one or two,
	// depending on its build.
	alarmText = regexp.MustCompile(`(memberID:\d+) +(alarm:)`)

	// What the tool says about a message that it cannot write, with pointers.
	unmarshaled = regexp.MustCompile(`(marshal unsupported for type \S+) \(&\{.*\}\)`)
	// etcd's tool turns the echo off by stty, which complains when standard
	// input is no terminal.
	sttyLine = regexp.MustCompile(`(?m)^stty: .*\n`)

	memberList     = regexp.MustCompile(`"members":\[\{.*\}\]`)
	initialCluster = regexp.MustCompile(`ETCD_INITIAL_CLUSTER=".*"`)

	flagLine    = regexp.MustCompile(`^(\s+(?:-\w, )?--[\w-]+(?: [a-z]+)?)\s{3}.*?( \(default .*\))?$`)
	commandLine = regexp.MustCompile(`^(  [a-z-]+) .*$`)
)

// normal is a result with what cannot be equal masked.
func (p *pair) normal(s step, r result) result {
	return result{p.normalText(s, r.out), p.normalText(s, r.errs), r.code}
}

func (p *pair) normalText(s step, text string) string {
	text = strings.ReplaceAll(text, p.endpoint(), "EP")
	for i, id := range p.leases {
		name := fmt.Sprintf("LEASE%d", i+1)
		text = strings.ReplaceAll(text, fmt.Sprintf("%016x", id), name)
		text = strings.ReplaceAll(text, fmt.Sprint(id), name)
	}
	for i, id := range p.members {
		name := fmt.Sprintf("MEMBER%d", i+1)
		// One id in sixteen is shorter, and filled up in sentences.
		text = strings.ReplaceAll(text, fmt.Sprintf("Member %16x ", id), "Member "+name+" ")
		text = strings.ReplaceAll(text, fmt.Sprintf("%x", id), name)
		text = strings.ReplaceAll(text, fmt.Sprint(id), name)
	}
	if s.squeezed {
		text = squeeze(text)
	}
	for _, all := range [][]mask{logMasks, stateMasks, timeMasks, snapshotMasks} {
		for _, m := range all {
			text = m.what.ReplaceAllString(text, m.by)
		}
	}
	text = statusRow.ReplaceAllString(text, "$1, S, S, N%$2, N, N, N")
	text = statusCells.ReplaceAllString(text, "$1 │ S │ S │ N% $2 │ N │ N │ N")
	text = unmarshaled.ReplaceAllString(text, "$1")
	text = sttyLine.ReplaceAllString(text, "")
	text = alarmText.ReplaceAllString(text, "$1  $2")
	// Members come in the order of their ids, and those of new ones are chance.
	text = memberList.ReplaceAllStringFunc(text, func(list string) string {
		return sorted(list, `"members":[{`, "},{", `}]`)
	})
	text = initialCluster.ReplaceAllStringFunc(text, func(list string) string {
		return sorted(list, `ETCD_INITIAL_CLUSTER="`, ",", `"`)
	})
	if s.unordered {
		lines := strings.Split(text, "\n")
		slices.Sort(lines)
		text = strings.Join(lines, "\n")
	}
	if strings.Contains(text, "Usage:\n") || s.page {
		text = frameOf(text)
	}
	return text
}

// sorted puts the parts of a list in order.
func sorted(list, open, between, end string) string {
	parts := strings.Split(strings.TrimSuffix(strings.TrimPrefix(list, open), end), between)
	slices.Sort(parts)
	return open + strings.Join(parts, between) + end
}

// squeeze takes the widths out of a table whose cells hold times or sizes.
func squeeze(text string) string {
	text = regexp.MustCompile(`─+`).ReplaceAllString(text, "─")
	return regexp.MustCompile(` +`).ReplaceAllString(text, " ")
}

// frameOf leaves of a help page what is not prose: usage lines, names of
// commands, flags with types and defaults, headings. Sentences are ours.
func frameOf(page string) string {
	var kept []string
	usage, example := false, false
	for _, line := range strings.Split(page, "\n") {
		switch {
		case line == "Usage:":
			usage = true
		case line == "Examples:":
			example = true
		case example && line != "" && !strings.HasPrefix(line, " "):
			example = false
		}
		// Errors stand before the usage, and count.
		isError := strings.HasPrefix(line, "Error: ") || strings.HasPrefix(line, "Unknown help topic")
		if example || (!usage && !isError && !flagLine.MatchString(line)) {
			continue
		}
		switch {
		case strings.HasPrefix(line, "  etcdctl"):
		case flagLine.MatchString(line):
			line = flagLine.ReplaceAllString(line, "$1$2")
		case commandLine.MatchString(line):
			line = commandLine.ReplaceAllString(line, "$1")
		}
		kept = append(kept, line)
	}
	return strings.Join(kept, "\n")
}
