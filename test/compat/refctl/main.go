// Command refctl is the reference of etcdctl: etcd's own, built from its
// published module at the version pinned in go.mod, with nothing of ours inside.
package main

import "go.etcd.io/etcd/etcdctl/v3/ctlv3"

func main() {
	ctlv3.MustStart()
}
