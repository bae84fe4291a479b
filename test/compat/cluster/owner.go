package cluster

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"strings"
)

// ownerOf returns the number of the member whose process holds the socket with
// the local address `its` that is connected to `ours`, or Outside.
//
// An error means that nobody holds it any more.
func ownerOf(its, ours *net.TCPAddr, members map[int]int) (int, error) {
	inode, err := inodeOf(its, ours)
	if err != nil {
		return 0, err
	}
	link := "socket:[" + inode + "]"
	for pid, member := range members {
		fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			continue // it has ended
		}
		for _, fd := range fds {
			if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name())); err == nil && to == link {
				return member, nil
			}
		}
	}
	return Outside, nil
}

// inodeOf looks a TCP connection up in the kernel's table.
//
//	sl  local_address rem_address   st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode …
//	0:  0100007F:A1B2 0100007F:0944 01 …
func inodeOf(local, remote *net.TCPAddr) (string, error) {
	f, err := os.Open("/proc/net/tcp")
	if err != nil {
		return "", err
	}
	defer f.Close()
	want := hexAddr(local) + " " + hexAddr(remote) + " "
	for scan := bufio.NewScanner(f); scan.Scan(); {
		if !strings.Contains(scan.Text(), want) {
			continue
		}
		fields := strings.Fields(scan.Text())
		if len(fields) > 9 && fields[9] != "0" {
			return fields[9], nil
		}
	}
	return "", fmt.Errorf("no process holds the connection from %s to %s", local, remote)
}

func hexAddr(a *net.TCPAddr) string {
	return fmt.Sprintf("%08X:%04X", binary.NativeEndian.Uint32(a.IP.To4()), a.Port)
}
