// Package cluster runs clusters of several members and spoils their luck.
//
// Each member is etcd itself or the server under test; the harness treats both
// alike. Between every two members stands a proxy in the test process, so that
// each direction of each pair can be cut, held, delayed, slowed or falsified:
//
//	member 0 ──dials──► door of 1 ──► member 1      client ──► member (directly)
//	    ▲                  │ who dialled? the kernel knows
//	    └── bytes back ────┘
//
// A member advertises the address of its door to the others and listens on
// another port. A door asks the kernel which process holds the other end of a
// connection, so it needs no insight into what is spoken, and TLS works as well.
//
// Nothing in the files without _test in their names needs package testing: the
// figures command stands on them too.
package cluster
