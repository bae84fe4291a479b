// Command refetcd is the reference: etcd itself, built from its published
// module at the version pinned in go.mod, with nothing of ours inside.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
