package tlsmodes

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"milepost.dev/test/compat/harness"
)

// serial is the number of the certificate that a server shows.
func (s *server) serial(t *testing.T) (string, error) {
	config := s.certs.config(t, "client")
	config.ServerName = "localhost"
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: visitWithin}, "tcp", s.values["{c}"], config)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.String(), nil
}

// take copies a file over another one.
func take(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	harness.WriteFile(t, to, text)
}

// TestRotation: new certificates on the disk are shown to new connections
// without a word to the server; so is a new list of revoked ones.
func TestRotation(t *testing.T) {
	for _, bin := range []harness.Binary{harness.Reference(t), harness.Subject(t)} {
		t.Run(bin.Name, func(t *testing.T) {
			t.Parallel()
			c := newCerts(t)
			s, err := boot(t, bin, c, "--cert-file={server.crt}", "--key-file={server.key}", "--client-cert-auth", "--trusted-ca-file={ca}", "--client-crl-file={crl}")
			if err != nil {
				t.Fatal(err)
			}
			before, err := s.serial(t)
			if err != nil {
				t.Fatal(err)
			}
			crt, key := c.ca.Issue(t, "next", harness.Leaf{CommonName: "server"})
			take(t, crt, c.files["{server.crt}"])
			take(t, key, c.files["{server.key}"])
			if err := s.await(func() error {
				after, err := s.serial(t)
				if err == nil && after == before {
					err = errors.New("the old certificate is still shown")
				}
				return err
			}); err != nil {
				t.Error(err)
			}
			if got := put(s.values["{c}"], credentials.NewTLS(c.config(t, "client"))); got != "put" {
				t.Errorf("before its revocation: %s", got)
			}
			take(t, c.ca.Revoke(t, "next", c.files["{revoked.crt}"], c.files["{client.crt}"]), c.files["{crl}"])
			if err := s.await(func() error {
				if got := put(s.values["{c}"], credentials.NewTLS(c.config(t, "client"))); got == "put" {
					return errors.New("a revoked client is still let in")
				}
				return nil
			}); err != nil {
				t.Error(err)
			}
			if got := put(s.values["{c}"], credentials.NewTLS(c.config(t, "named"))); got != "put" {
				t.Errorf("somebody else, after the revocation: %s", got)
			}
		})
	}
}

// TestAuthorityReload: a new authority is taken up while a hundred connections
// stay open, and a broken one is not.
func TestAuthorityReload(t *testing.T) {
	harness.NeedOwnSubject(t) // etcd reads its authority once
	c := newCerts(t)
	s, err := boot(t, harness.Subject(t), c, "--cert-file={server.crt}", "--key-file={server.key}", "--client-cert-auth", "--trusted-ca-file={ca}")
	if err != nil {
		t.Fatal(err)
	}
	const crowd = 100
	conns := make([]*grpc.ClientConn, crowd)
	watches := make([]pb.Watch_WatchClient, crowd)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for i := range conns {
		conns[i], err = grpc.NewClient(s.values["{c}"], grpc.WithTransportCredentials(credentials.NewTLS(c.config(t, "client"))), grpc.WithDisableRetry())
		if err != nil {
			t.Fatal(err)
		}
		defer conns[i].Close()
		if watches[i], err = pb.NewWatchClient(conns[i]).Watch(ctx); err != nil {
			t.Fatal(err)
		}
		create := &pb.WatchCreateRequest{Key: []byte("k")}
		if err := watches[i].Send(&pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: create}}); err != nil {
			t.Fatal(err)
		}
		if _, err := watches[i].Recv(); err != nil {
			t.Fatal(err)
		}
	}
	stranger := func() string { return put(s.values["{c}"], credentials.NewTLS(c.config(t, "stranger"))) }
	if got := stranger(); got == "put" {
		t.Fatal("a stranger is let in before the change")
	}
	// The new authority is another one: the crowd's own certificates are no
	// longer good for a new connection.
	take(t, c.other.File, c.files["{ca}"])
	if err := s.p.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if err := s.await(func() error {
		if got := stranger(); got != "put" {
			return fmt.Errorf("the new authority's client: %s", got)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if got := put(s.values["{c}"], credentials.NewTLS(c.config(t, "client"))); got == "put" {
		t.Error("the old authority's client is let in after the change")
	}
	// stranger's put is what each watcher of the crowd must have seen.
	var together sync.WaitGroup
	for i := range conns {
		together.Go(func() {
			resp, err := watches[i].Recv()
			if err != nil || len(resp.Events) == 0 {
				t.Errorf("connection %d: its watch: %v, %v", i, resp, err)
			}
			if _, err := pb.NewKVClient(conns[i]).Range(ctx, &pb.RangeRequest{Key: []byte("k")}); err != nil {
				t.Errorf("connection %d: %v", i, err)
			}
		})
	}
	together.Wait()
	// What cannot be read is refused, with a word, and the last good one stays.
	for _, name := range []string{"{ca}", "{server.crt}"} {
		good, err := os.ReadFile(c.files[name])
		if err != nil {
			t.Fatal(err)
		}
		heard := len(s.p.Stderr())
		harness.WriteFile(t, c.files[name], []byte("nothing of the kind\n"))
		if err := s.p.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		if err := s.await(func() error {
			for _, line := range strings.Split(s.p.Stderr()[heard:], "\n") {
				if strings.Contains(line, c.files[name]) && (strings.Contains(line, `"level":"warn"`) || strings.Contains(line, `"level":"error"`)) {
					return nil
				}
			}
			return errors.New("no word about the broken file")
		}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := stranger(); got != "put" {
			t.Errorf("with %s broken on the disk: %s", name, got)
		}
		harness.WriteFile(t, c.files[name], good)
	}
}

// TestAutoAgain: what --auto-tls has made is used again after a restart.
func TestAutoAgain(t *testing.T) {
	for _, bin := range []harness.Binary{harness.Reference(t), harness.Subject(t)} {
		t.Run(bin.Name, func(t *testing.T) {
			t.Parallel()
			c := newCerts(t)
			data := t.TempDir() + "/data"
			show := func() string {
				s, err := boot(t, bin, c, "--auto-tls", "--data-dir="+data, "--force-new-cluster")
				if err != nil {
					t.Fatal(err)
				}
				defer s.p.Kill()
				var shown string
				if err := s.await(func() error {
					conn, err := tls.Dial("tcp", s.values["{c}"], &tls.Config{InsecureSkipVerify: true})
					if err != nil {
						return err
					}
					defer conn.Close()
					shown = conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				return shown
			}
			if one, two := show(), show(); one != two {
				t.Errorf("first %s, then %s", one, two)
			}
		})
	}
}

// TestSlowHandshake: who connects and says nothing is sent away, and keeps
// nobody else out.
func TestSlowHandshake(t *testing.T) {
	for _, bin := range []harness.Binary{harness.Reference(t), harness.Subject(t)} {
		t.Run(bin.Name, func(t *testing.T) {
			t.Parallel()
			c := newCerts(t)
			s, err := boot(t, bin, c, "--cert-file={server.crt}", "--key-file={server.key}")
			if err != nil {
				t.Fatal(err)
			}
			silent := make([]net.Conn, 50)
			for i := range silent {
				if silent[i], err = net.DialTimeout("tcp", s.values["{c}"], visitWithin); err != nil {
					t.Fatal(err)
				}
				defer silent[i].Close()
			}
			if got := put(s.values["{c}"], credentials.NewTLS(c.config(t, ""))); got != "put" {
				t.Errorf("beside silent connections: %s", got)
			}
			// etcd gives a handshake ten seconds.
			if err := silent[0].SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := silent[0].Read(make([]byte, 100)); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("a silent connection is kept")
			}
		})
	}
}
