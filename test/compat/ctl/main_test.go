package ctl

import (
	"fmt"
	"os"
	"slices"
	"testing"
)

// floor is how many command lines the whole suite compares at least: less
// means that somebody took tests away.
const floor = 700

func TestMain(m *testing.M) {
	code := m.Run()
	kinds := make([]string, 0, len(total))
	sum := 0
	for kind, count := range total {
		kinds = append(kinds, kind)
		sum += count
	}
	slices.Sort(kinds)
	fmt.Printf("command lines compared, by kind:\n")
	for _, kind := range kinds {
		fmt.Printf("  %-24s %4d\n", kind, total[kind])
	}
	fmt.Printf("  %-24s %4d\n", "all", sum)
	all := len(os.Args) == 0 || !slices.ContainsFunc(os.Args, func(arg string) bool {
		return len(arg) >= 10 && arg[:10] == "-test.run="
	})
	if all && sum < floor && code == 0 {
		fmt.Printf("fewer than %d lines were compared\n", floor)
		code = 1
	}
	os.Exit(code)
}
