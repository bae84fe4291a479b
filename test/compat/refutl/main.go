// Command refutl is the reference of etcdutl: etcd's own commands, built from their published module at the version
// pinned in go.mod, with nothing of ours inside.
package main

import (
	"os"
	"time"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/etcdutl/v3/etcdutl"
)

func main() {
	root := &cobra.Command{Use: "etcdutl"}
	root.PersistentFlags().StringVarP(&etcdutl.OutputFormat, "write-out", "w", "simple", "")
	etcdutl.FlockTimeout = 10 * time.Second
	root.AddCommand(etcdutl.NewDefragCommand(), etcdutl.NewSnapshotCommand(), etcdutl.NewHashKVCommand(),
		etcdutl.NewVersionCommand(), etcdutl.NewMigrateCommand())
	if err := root.Execute(); err != nil {
		os.Exit(1)
	}
}
