package differ

import (
	"fmt"
	"sort"
	"strings"

	"google.golang.org/grpc/codes"
)

// Table counts questions by kind and by the code of the reference's answer.
type Table struct {
	rows map[string]map[codes.Code]int
}

// NewTable returns an empty table.
func NewTable() *Table { return &Table{rows: map[string]map[codes.Code]int{}} }

// Count notes one question of a kind and how the reference answered it.
func (t *Table) Count(kind string, code codes.Code) {
	row := t.rows[kind]
	if row == nil {
		row = map[codes.Code]int{}
		t.rows[kind] = row
	}
	row[code]++
}

// Outcomes returns how many questions of a kind succeeded and how many failed.
func (t *Table) Outcomes(kind string) (ok, failed int) {
	for code, n := range t.rows[kind] {
		if code == codes.OK {
			ok += n
		} else {
			failed += n
		}
	}
	return ok, failed
}

// Floor is the least number of questions of one kind a suite must have asked,
// by outcome on the reference.
type Floor struct {
	Kind       string
	OK, Failed int
}

// Below lists each floor that was not reached.
func (t *Table) Below(floors []Floor) []string {
	var complaints []string
	for _, floor := range floors {
		ok, failed := t.Outcomes(floor.Kind)
		if ok < floor.OK || failed < floor.Failed {
			complaints = append(complaints, fmt.Sprintf(
				"%s: %d succeeded and %d failed, wanted at least %d and %d",
				floor.Kind, ok, failed, floor.OK, floor.Failed))
		}
	}
	return complaints
}

// String prints one line per kind: sent, succeeded, and failures by code.
func (t *Table) String() string {
	kinds := make([]string, 0, len(t.rows))
	for kind := range t.rows {
		kinds = append(kinds, kind)
	}
	sort.Strings(kinds)
	var b strings.Builder
	fmt.Fprintf(&b, "%-24s %7s %7s  %s\n", "kind", "sent", "ok", "failed by code")
	for _, kind := range kinds {
		ok, failed := t.Outcomes(kind)
		var byCode []string
		for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
			if n := t.rows[kind][code]; n > 0 {
				byCode = append(byCode, fmt.Sprintf("%s(%d)=%d", code, uint32(code), n))
			}
		}
		fmt.Fprintf(&b, "%-24s %7d %7d  %s\n", kind, ok+failed, ok, strings.Join(byCode, " "))
	}
	return b.String()
}
