// Command walgold holds etcd's own log code ready for other programs' tests.
//
//	walgold write DIR         one log directory per shape, each with expect.json
//	walgold shapes            the shapes' names
//	walgold read WAL [SNAP]   what etcd reads from a log directory, as JSON
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"milepost.dev/test/compat/waldir"
)

const usage = "usage: walgold write DIR | walgold shapes | walgold read WAL [SNAP]"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "walgold:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 2 && args[0] == "write":
		return waldir.Write(args[1])
	case len(args) == 1 && args[0] == "shapes":
		for _, name := range waldir.ShapeNames() {
			fmt.Println(name)
		}
		return nil
	case (len(args) == 2 || len(args) == 3) && args[0] == "read":
		snapDir := ""
		if len(args) == 3 {
			snapDir = args[2]
		}
		contents, err := waldir.Read(args[1], snapDir)
		if err != nil {
			return err
		}
		out := json.NewEncoder(os.Stdout)
		out.SetIndent("", " ")
		return out.Encode(contents)
	default:
		return fmt.Errorf("%s", usage)
	}
}
