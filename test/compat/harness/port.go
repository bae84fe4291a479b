package harness

import (
	"fmt"
	"net"
	"os"
	"syscall"
)

// Reserve asks the kernel for a loopback port and keeps it for the servers of
// this process until it ends: a socket that is bound but does not listen. The
// kernel gives such a port to nobody else, neither to who listens nor to who
// connects; a server that sets SO_REUSEADDR, as all of ours do, may listen there,
// as often as it starts; and who connects meanwhile is refused.
func Reserve() (string, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", os.NewSyscallError("socket", err)
	}
	addr, err := bind(fd)
	if err != nil {
		syscall.Close(fd)
	}
	return addr, err
}

func bind(fd int) (string, error) {
	if err := syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return "", os.NewSyscallError("setsockopt", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return "", os.NewSyscallError("bind", err)
	}
	at, err := syscall.Getsockname(fd)
	if err != nil {
		return "", os.NewSyscallError("getsockname", err)
	}
	in4, ok := at.(*syscall.SockaddrInet4)
	if !ok {
		return "", fmt.Errorf("bound to %T", at)
	}
	return (&net.TCPAddr{IP: net.IP(in4.Addr[:]), Port: in4.Port}).String(), nil
}
