package ctl

import (
	"fmt"
	"testing"

	"milepost.dev/test/compat/harness"
)

// TestShortIDs: one member's id in sixteen has fewer digits than the others, and is filled up in sentences and cells.
func TestShortIDs(t *testing.T) {
	t.Parallel()
	read := func(id uint64) string {
		p := &pair{server: &harness.Server{ClientURL: "http://127.0.0.1:1"}, members: []uint64{id}}
		text := fmt.Sprintf("Member %16x added to cluster 00cdf818194e3a8c32\n%x, started, m\n│ %-16x │ started │\n", id, id, id)
		return p.normalText(step{squeezed: true}, text)
	}
	if long, short := read(0x71ea3b7b70a6f5d7), read(0x987522322891859); long != short {
		t.Errorf("%s\nand of a short id\n%s", long, short)
	}
}
