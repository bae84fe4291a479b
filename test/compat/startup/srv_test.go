package startup

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"milepost.dev/test/compat/harness"
)

// TestDiscoveryBySRV lets members of both kinds, and etcdctl of both kinds, find each other by SRV records. Resolvers ask
// port 53 of the servers in /etc/resolv.conf, so the test runs itself again in namespaces where both are its own.
func TestDiscoveryBySRV(t *testing.T) {
	if os.Getenv("COMPAT_SRV") != "" {
		srvInside(t)
		return
	}
	words := []string{"--mount", "--net"}
	if os.Geteuid() != 0 {
		words = append(words, "--user", "--map-root-user")
	}
	again := exec.Command("unshare", append(words, os.Args[0], "-test.run=^TestDiscoveryBySRV$", "-test.v")...)
	// Built out here, where there is a network.
	again.Env = append(os.Environ(), "COMPAT_SRV="+harness.BuildTool(t, "refctl"),
		"COMPAT_SRV_ETCD="+harness.Reference(t).Path, "MILEPOST_BIN="+harness.Subject(t).Path)
	if out, err := again.CombinedOutput(); err != nil {
		t.Fatalf("%v (it needs the program unshare of util-linux, and root or user namespaces)\n%s", err, out)
	}
}

// zone is what the DNS server knows: the services of x.test, and hosts that are all here.
type zone map[string][]dnsmessage.SRVResource

func (z zone) serve(conn net.PacketConn) {
	buffer := make([]byte, 600)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if err != nil {
			return // closed with the test
		}
		var asked dnsmessage.Message
		if asked.Unpack(buffer[:n]) != nil || len(asked.Questions) != 1 {
			continue
		}
		answer := dnsmessage.Message{Header: dnsmessage.Header{ID: asked.ID, Response: true, RecursionAvailable: true}, Questions: asked.Questions}
		q := asked.Questions[0]
		name := strings.ToLower(strings.TrimSuffix(q.Name.String(), "."))
		head := dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET, TTL: 60}
		isHost := strings.HasSuffix(name, ".host.test")
		switch {
		case q.Type == dnsmessage.TypeSRV:
			for _, srv := range z[name] {
				answer.Answers = append(answer.Answers, dnsmessage.Resource{Header: head, Body: &srv})
			}
		case q.Type == dnsmessage.TypeA && isHost:
			answer.Answers = append(answer.Answers, dnsmessage.Resource{Header: head, Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}})
		}
		if len(z[name]) == 0 && !isHost {
			answer.RCode = dnsmessage.RCodeNameError
		}
		if packed, err := answer.Pack(); err == nil {
			_, _ = conn.WriteTo(packed, from) // who has gone asks no more
		}
	}
}

// ownNetwork makes loopback work and this process's DNS server the system's.
func ownNetwork(t *testing.T) net.PacketConn {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(socket)
	loopback, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	loopback.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, loopback); err != nil {
		t.Fatal(err)
	}
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, []byte("nameserver 127.0.0.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(conf, "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenPacket("udp", "127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func srvInside(t *testing.T) {
	conn := ownNetwork(t)
	reference := harness.Binary{Name: "reference", Path: os.Getenv("COMPAT_SRV_ETCD")}
	subject := harness.Subject(t)
	z := zone{}
	type member struct {
		bin          harness.Binary
		client, peer string
	}
	var all []member
	for i, bin := range []harness.Binary{subject, subject, reference} {
		m := member{bin, harness.FreeAddr(t), harness.FreeAddr(t)}
		all = append(all, m)
		for service, address := range map[string]string{"_etcd-server._tcp.x.test": m.peer, "_etcd-client._tcp.x.test": m.client} {
			var port uint16
			fmt.Sscanf(address, "127.0.0.1:%d", &port)
			target := dnsmessage.MustNewName(fmt.Sprintf("m%d.host.test.", i))
			// Of different priorities: the order of those of one is chance in etcd.
			z[service] = append(z[service], dnsmessage.SRVResource{Priority: uint16(i), Port: port, Target: target})
		}
	}
	go z.serve(conn)

	for i, m := range all {
		dir := t.TempDir()
		url := strings.Replace("http://"+m.peer, "127.0.0.1", fmt.Sprintf("m%d.host.test", i), 1)
		p := harness.Launch(t, m.bin, dir, []string{
			fmt.Sprintf("--name=m%d", i), "--data-dir=" + filepath.Join(dir, "data"), "--unsafe-no-fsync=true",
			"--listen-client-urls=http://" + m.client, "--advertise-client-urls=http://" + m.client,
			"--listen-peer-urls=http://" + m.peer, "--initial-advertise-peer-urls=" + url, "--discovery-srv=x.test",
		}, nil)
		defer func() {
			if t.Failed() {
				t.Logf("m%d, %s:\n%s", i, m.bin.Name, p.Stderr())
			}
		}()
	}
	var lists []string
	for _, m := range all {
		list, err := members(m.client, len(all))
		if err != nil {
			t.Fatal(err)
		}
		lists = append(lists, list)
	}
	if lists[0] != lists[1] || lists[0] != lists[2] {
		t.Fatalf("members differ:\n%s", strings.Join(lists, "\n"))
	}

	// etcdctl of both kinds, the same words.
	for _, words := range []string{
		"--discovery-srv=x.test member list",
		"--discovery-srv=x.test --endpoints=127.0.0.1:1 endpoint status --cluster --write-out=fields",
		"--discovery-srv=x.test --insecure-discovery=false --endpoints=" + all[0].client + " get a",
		"--discovery-srv=nowhere.test get a",
		"--discovery-srv=x.test --discovery-srv-name=blue get a",
	} {
		args := strings.Fields(words)
		theirs, theirEnd := printedBy(os.Getenv("COMPAT_SRV"), args)
		ours, ourEnd := printedBy(subject.Path, append([]string{"etcdctl"}, args...))
		if theirs != ours || theirEnd != ourEnd {
			t.Errorf("etcdctl %s: %s and\n%s\nand ours %s and\n%s", words, theirEnd, theirs, ourEnd, ours)
		}
	}

	// Starts that are refused.
	for _, words := range []string{
		"--discovery-srv=nowhere.test",
		"--discovery-srv=x.test --initial-advertise-peer-urls=http://127.0.0.1:9",
	} {
		var errors []string
		for _, bin := range []harness.Binary{reference, subject} {
			args := append([]string{"--name=z", "--listen-peer-urls=http://" + harness.FreeAddr(t)}, strings.Fields(words)...)
			p := harness.Launch(t, bin, t.TempDir(), args, nil)
			end, err := p.End(time.Minute)
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSpace(p.Stderr()), "\n")
			why := regexp.MustCompile(`"msg":"[^"]*","error":"(\\.|[^"])*"`).FindString(lines[len(lines)-1])
			errors = append(errors, end+" "+why)
		}
		if errors[0] != errors[1] || !strings.Contains(errors[0], "exit 1") {
			t.Errorf("%s:\n%s\n%s", words, errors[0], errors[1])
		}
	}
}

// printedBy is what a program prints, without what differs from run to run, and how it ends.
func printedBy(program string, args []string) (string, string) {
	out, err := exec.Command(program, args...).CombinedOutput()
	// Log lines, and ids of the answering member, terms and sizes, are another story's.
	var kept []string
	for _, line := range strings.Split(string(out), "\n") {
		if !strings.HasPrefix(line, `{"level"`) && (!strings.HasPrefix(line, `"`) || strings.HasPrefix(line, `"Endpoint"`)) {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "\n"), fmt.Sprint(err)
}
