// Package tlsmodes starts etcd and the server under test with certificates in
// every way that one member has, and comes as the Go client, curl and
// openssl: who gets in, with which protocol, must be the same.
//
//	mode (flags) ─┬─► etcd ────► each visitor: what it got ─┐
//	              └─► subject ─► each visitor: what it got ─┴─► equal?
//
// All certificates are made when a test runs.
package tlsmodes

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"milepost.dev/test/compat/harness"
)

// Bounds of waiting, generous because the machine may be busy.
const (
	upWithin    = 60 * time.Second
	visitWithin = 15 * time.Second
)

// certs are the files of one test.
type certs struct {
	dir       string
	ca, other *harness.Authority
	files     map[string]string
}

// newCerts makes two authorities, a server's pair, and clients of every kind.
func newCerts(t *testing.T) *certs {
	t.Helper()
	dir := t.TempDir()
	c := &certs{dir: dir, ca: harness.NewAuthority(t, dir, "ca"), other: harness.NewAuthority(t, dir, "other-ca"), files: map[string]string{}}
	add := func(name string, a *harness.Authority, leaf harness.Leaf) {
		c.files["{"+name+".crt}"], c.files["{"+name+".key}"] = a.Issue(t, name, leaf)
	}
	add("server", c.ca, harness.Leaf{CommonName: "server"})
	add("client", c.ca, harness.Leaf{CommonName: "client", Client: true})
	add("named", c.ca, harness.Leaf{CommonName: "named", DNS: []string{"good.example"}})
	add("revoked", c.ca, harness.Leaf{CommonName: "revoked", Client: true})
	add("expired", c.ca, harness.Leaf{CommonName: "expired", Client: true, Expired: true})
	add("stranger", c.other, harness.Leaf{CommonName: "stranger", Client: true})
	c.files["{ca}"], c.files["{other-ca}"] = c.ca.File, c.other.File
	c.files["{crl}"] = c.ca.Revoke(t, "list", c.files["{revoked.crt}"])
	return c
}

// server is one running server.
type server struct {
	bin    harness.Binary
	p      *harness.Process
	dir    string
	values map[string]string
	certs  *certs
}

func (s *server) fill(text string) string {
	for _, values := range []map[string]string{s.values, s.certs.files} {
		for name, value := range values {
			text = strings.ReplaceAll(text, name, value)
		}
	}
	return text
}

// boot starts a server and waits until it says that it serves.
func boot(t *testing.T, bin harness.Binary, c *certs, args ...string) (*server, error) {
	t.Helper()
	for attempt := 0; ; attempt++ {
		// Short: the path of a unix socket has about a hundred bytes.
		dir, err := os.MkdirTemp("", "mt")
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		s := &server{bin: bin, dir: dir, certs: c, values: map[string]string{"{dir}": dir}}
		for _, name := range []string{"{c}", "{h}", "{m}", "{p}"} {
			s.values[name] = harness.FreeAddr(t)
		}
		line := []string{
			"--name=m1", "--data-dir={dir}/data", "--unsafe-no-fsync=true", "--listen-peer-urls=http://{p}",
			"--initial-advertise-peer-urls=http://{p}", "--initial-cluster=m1=http://{p}",
			"--listen-client-urls=https://{c}", "--advertise-client-urls=https://{c}",
		}
		var full []string
		for _, arg := range append(line, args...) {
			full = append(full, s.fill(arg))
		}
		s.p = harness.Launch(t, bin, dir, full, nil)
		err = s.await(func() error {
			if !strings.Contains(s.p.Stderr(), "serving client traffic") {
				return fmt.Errorf("it does not say that it serves")
			}
			return nil
		})
		if err != nil && attempt < 5 && strings.Contains(s.p.Stderr(), "address already in use") {
			continue
		}
		return s, err
	}
}

// await asks until there is no complaint, or the server has ended.
func (s *server) await(what func() error) error {
	deadline := time.Now().Add(upWithin)
	for {
		err := what()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-s.p.Exited():
			end, _ := s.p.End(0)
			log := strings.Split(strings.TrimSpace(s.p.Stderr()), "\n")
			return fmt.Errorf("it ended (%s): %s", end, log[len(log)-1])
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// visitor comes to a server and says what it got.
type visitor struct {
	name string
	ask  func(s *server) string
}

// who is a client's certificate; empty means none.
func (c *certs) config(t testing.TB, who string) *tls.Config {
	if who == "" {
		return c.ca.ClientTLS(t, "", "")
	}
	return c.ca.ClientTLS(t, c.files["{"+who+".crt}"], c.files["{"+who+".key}"])
}

// put writes a key by gRPC and tells the code.
func put(target string, creds credentials.TransportCredentials) string {
	conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(creds), grpc.WithDisableRetry(), grpc.WithAuthority("localhost"))
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), visitWithin)
	defer cancel()
	_, err = pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: []byte("k")})
	if code := status.Code(err); code != codes.OK {
		return code.String()
	}
	return "put"
}

func goClient(t *testing.T, who string) visitor {
	return visitor{"Go client as " + orNobody(who), func(s *server) string {
		return put(s.values["{c}"], credentials.NewTLS(s.certs.config(t, who)))
	}}
}

// goDial is a handshake with a changed configuration: what was agreed on.
func goDial(t *testing.T, name, who string, change func(*tls.Config)) visitor {
	return visitor{"handshake, " + name, func(s *server) string {
		config := s.certs.config(t, who)
		config.ServerName = "localhost"
		if change != nil {
			change(config)
		}
		conn, err := tls.DialWithDialer(&net.Dialer{Timeout: visitWithin}, "tcp", s.values["{c}"], config)
		if err != nil {
			return "refused"
		}
		defer conn.Close()
		state := conn.ConnectionState()
		return fmt.Sprintf("%s, protocol %q", tls.VersionName(state.Version), state.NegotiatedProtocol)
	}}
}

// page fetches a page over HTTP/1 or HTTP/2 by Go's client.
func page(t *testing.T, where, path, who string, two bool) visitor {
	kind := "HTTP/1"
	if two {
		kind = "HTTP/2"
	}
	return visitor{fmt.Sprintf("%s of %s%s as %s", kind, where, path, orNobody(who)), func(s *server) string {
		config := s.certs.config(t, who)
		var carrier http.RoundTripper = &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
		if two {
			carrier = &http2.Transport{TLSClientConfig: config}
		}
		ctx, cancel := context.WithTimeout(context.Background(), visitWithin)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, "GET", s.fill(where+path), nil)
		if err != nil {
			return err.Error()
		}
		resp, err := carrier.RoundTrip(req)
		if err != nil {
			return "refused"
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return "broken off"
		}
		text := string(body)
		if path == "/metrics" {
			text = fmt.Sprint("a page: ", len(text) > 1000)
		}
		return fmt.Sprint(resp.Proto, " ", resp.StatusCode, " ", text)
	}}
}

// tool runs a program on a request and tells what it printed that counts.
func tool(name string, find *regexp.Regexp, stdin string, line ...string) visitor {
	return visitor{name, func(s *server) string {
		ctx, cancel := context.WithTimeout(context.Background(), visitWithin)
		defer cancel()
		args := make([]string, len(line))
		for i, arg := range line {
			args[i] = s.fill(arg)
		}
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Stdin = strings.NewReader(stdin)
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		// How far a handshake came that then failed, and how often a session was
		// renewed, is no one's business: only the alert counts, and each fact once.
		var facts []string
		for _, fact := range find.FindAllString(out.String(), -1) {
			if (err == nil || strings.HasPrefix(fact, "alert") || strings.HasPrefix(fact, "status")) && !slices.Contains(facts, fact) {
				facts = append(facts, fact)
			}
		}
		return fmt.Sprintf("success %t: %s", err == nil, strings.Join(facts, "; "))
	}}
}

func curl(name string, args ...string) visitor {
	line := append([]string{"curl", "-sS", "--max-time", "10", "--cacert", "{ca}", "-w", "\nstatus %{http_code} version %{http_version}"}, args...)
	return tool("curl, "+name, regexp.MustCompile(`status \d+ version \S+|"health":"true"|"etcdserver":"[^"]+"`), "", line...)
}

func openssl(name string, args ...string) visitor {
	line := append([]string{"openssl", "s_client", "-connect", "{c}", "-CAfile", "{ca}"}, args...)
	return tool("openssl, "+name, regexp.MustCompile(`New, TLSv[0-9.]+|ALPN protocol: \S+|No ALPN negotiated|alert number \d+|Verify return code: \d+`), "", line...)
}

func orNobody(who string) string {
	if who == "" {
		return "nobody"
	}
	return who
}

// mode is a set of flags and who comes.
type mode struct {
	name     string
	args     []string
	visitors []visitor
}

func modes(t *testing.T) []mode {
	pair := []string{"--cert-file={server.crt}", "--key-file={server.key}"}
	plus := func(args ...string) []string { return append(append([]string{}, pair...), args...) }
	protocols := []visitor{
		goDial(t, "h2", "client", func(c *tls.Config) { c.NextProtos = []string{"h2"} }),
		goDial(t, "http/1.1 only", "client", func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }),
		goDial(t, "both", "client", func(c *tls.Config) { c.NextProtos = []string{"http/1.1", "h2"} }),
		goDial(t, "another protocol", "client", func(c *tls.Config) { c.NextProtos = []string{"spdy/3"} }),
		goDial(t, "no protocol", "client", nil),
		openssl("h2", "-alpn", "h2", "-cert", "{client.crt}", "-key", "{client.key}"),
		openssl("http/1.1", "-alpn", "http/1.1", "-cert", "{client.crt}", "-key", "{client.key}"),
		openssl("another protocol", "-alpn", "spdy/3", "-cert", "{client.crt}", "-key", "{client.key}"),
	}
	versions := []visitor{
		openssl("TLS 1.2", "-tls1_2"), openssl("TLS 1.3", "-tls1_3"),
		goDial(t, "TLS 1.1 at most", "", func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }),
		goDial(t, "TLS 1.2 at most", "", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }),
		goDial(t, "TLS 1.3 at least", "", func(c *tls.Config) { c.MinVersion = tls.VersionTLS13 }),
		goDial(t, "any", "", nil),
	}
	pages := func(who string) []visitor {
		return []visitor{
			page(t, "https://{c}", "/health", who, false), page(t, "https://{c}", "/version", who, true),
			page(t, "https://{c}", "/nothing", who, false), page(t, "https://{c}", "/metrics", who, true),
		}
	}
	clients := []visitor{
		goClient(t, ""), goClient(t, "client"), goClient(t, "stranger"), goClient(t, "expired"), goClient(t, "revoked"), goClient(t, "named"),
		curl("no certificate", "https://{c}/health"),
		curl("certificate", "--cert", "{client.crt}", "--key", "{client.key}", "https://{c}/health"),
		curl("stranger", "--cert", "{stranger.crt}", "--key", "{stranger.key}", "https://{c}/health"),
	}
	all := func(groups ...[]visitor) []visitor {
		var out []visitor
		for _, group := range groups {
			out = append(out, group...)
		}
		return out
	}
	wrongCA := visitor{"Go client that trusts another authority", func(s *server) string {
		return put(s.values["{c}"], credentials.NewTLS(s.certs.other.ClientTLS(t, "", "")))
	}}
	plain := visitor{"Go client without TLS", func(s *server) string { return put(s.values["{c}"], insecure.NewCredentials()) }}
	plainPage := page(t, "http://{c}", "/health", "", false)
	unix := visitor{"Go client on the unix socket", func(s *server) string {
		return put("unix:"+s.dir+"/s", credentials.NewTLS(s.certs.config(t, "")))
	}}
	suite := func(name string) visitor { return openssl("suite "+name, "-tls1_2", "-cipher", name) }
	return []mode{
		{"server", pair, all(clients, protocols, versions, pages(""), []visitor{wrongCA, plain, plainPage,
			curl("HTTP/1.1", "--http1.1", "https://{c}/health"), curl("HTTP/2", "--http2", "https://{c}/version"),
			curl("gateway", "-d", "{}", "https://{c}/v3/maintenance/status"),
		})},
		{"client certificates", plus("--client-cert-auth", "--trusted-ca-file={ca}"), all(clients, protocols, pages("client"), pages(""), []visitor{
			curl("gateway", "--cert", "{client.crt}", "--key", "{client.key}", "-d", `{"key":"YQ=="}`, "https://{c}/v3/kv/range"),
		})},
		{"authority alone", plus("--trusted-ca-file={ca}"), all(clients, pages("client"))},
		{"other authority", plus("--client-cert-auth", "--trusted-ca-file={other-ca}"), clients},
		{"revocations", plus("--client-cert-auth", "--trusted-ca-file={ca}", "--client-crl-file={crl}"), clients},
		{"host names", plus("--client-cert-auth", "--trusted-ca-file={ca}", "--client-cert-allowed-hostname=good.example"), clients},
		{"TLS 1.3 at least", plus("--tls-min-version=TLS1.3"), all(versions, []visitor{goClient(t, "")})},
		{"TLS 1.2 at most", plus("--tls-max-version=TLS1.2"), all(versions, []visitor{goClient(t, "")})},
		{"suites", plus("--tls-max-version=TLS1.2", "--cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"), []visitor{
			suite("ECDHE-ECDSA-AES256-GCM-SHA384"), suite("ECDHE-ECDSA-AES128-GCM-SHA256"), suite("ECDHE-ECDSA-CHACHA20-POLY1305"), suite("ECDHE-RSA-AES256-GCM-SHA384"),
		}},
		{"http and https on one port", plus("--listen-client-urls=https://{c},http://{c}"), all(clients, pages(""), []visitor{plain, plainPage, curl("plain", "http://{c}/health")})},
		{"gRPC and HTTP apart", plus("--listen-client-http-urls=https://{h}"), []visitor{
			goClient(t, ""), page(t, "https://{h}", "/health", "", false), page(t, "https://{h}", "/version", "", true), page(t, "https://{c}", "/health", "", false),
			curl("gateway", "-d", `{"key":"YQ=="}`, "https://{h}/v3/kv/range"), curl("HTTP/1.1 to gRPC", "--http1.1", "https://{c}/health"), plain,
		}},
		{"metrics", plus("--listen-metrics-urls=https://{m}"), []visitor{
			page(t, "https://{m}", "/metrics", "", false), page(t, "https://{m}", "/health", "", true), page(t, "https://{m}", "/version", "", false), page(t, "http://{m}", "/health", "", false),
		}},
		{"metrics with client certificates", plus("--client-cert-auth", "--trusted-ca-file={ca}", "--listen-metrics-urls=https://{m}"), []visitor{
			page(t, "https://{m}", "/metrics", "", false), page(t, "https://{m}", "/metrics", "client", false), page(t, "https://{m}", "/health", "stranger", false),
		}},
		{"plain metrics", plus("--listen-metrics-urls=http://{m}"), []visitor{page(t, "http://{m}", "/metrics", "", false), page(t, "http://{m}", "/health", "", false)}},
		{"unix socket", plus("--listen-client-urls=unixs://{dir}/s"), []visitor{unix, curl("unix", "--unix-socket", "{dir}/s", "https://localhost/health")}},
		{"plain URL with certificates", plus("--listen-client-urls=http://{c}"), []visitor{plain, plainPage, goClient(t, "")}},
		{"auto", []string{"--auto-tls"}, []visitor{
			goClient(t, ""), plain,
			{"Go client that verifies nothing", func(s *server) string {
				return put(s.values["{c}"], credentials.NewTLS(&tls.Config{InsecureSkipVerify: true}))
			}},
			{"files", func(s *server) string {
				var found []string
				for _, name := range []string{"cert.pem", "key.pem"} {
					info, err := os.Stat(filepath.Join(s.dir, "data/fixtures/client", name))
					if err != nil {
						return err.Error()
					}
					mode := info.Mode().Perm()
					if name == "cert.pem" {
						mode &= 0o400 // others may read it or not
					}
					found = append(found, fmt.Sprintf("%s %o", name, mode))
				}
				return strings.Join(found, ", ")
			}},
			{"certificate", func(s *server) string {
				conn, err := tls.Dial("tcp", s.values["{c}"], &tls.Config{InsecureSkipVerify: true})
				if err != nil {
					return "refused"
				}
				defer conn.Close()
				cert := conn.ConnectionState().PeerCertificates[0]
				return fmt.Sprint(cert.Subject.Organization, cert.IPAddresses, cert.DNSNames, cert.IsCA, cert.PublicKeyAlgorithm, cert.NotAfter.Sub(cert.NotBefore).Round(24*time.Hour))
			}},
		}},
	}
}

// TestModes compares every visitor's experience in every mode.
func TestModes(t *testing.T) {
	c := newCerts(t)
	var mu sync.Mutex
	got := map[string]int{}
	met := 0
	all := modes(t)
	t.Run("in", func(t *testing.T) {
		for _, m := range all {
			t.Run(m.name, func(t *testing.T) {
				t.Parallel()
				ref, err := boot(t, harness.Reference(t), c, m.args...)
				if err != nil {
					t.Fatalf("the reference with %q: %v", m.args, err)
				}
				sub, err := boot(t, harness.Subject(t), c, m.args...)
				if err != nil {
					t.Fatalf("the subject with %q: %v", m.args, err)
				}
				mu.Lock()
				met++
				mu.Unlock()
				for _, v := range m.visitors {
					one, two := v.ask(ref), v.ask(sub)
					if os.Getenv("TLSMODES_SHOW") != "" {
						t.Logf("%s: %s", v.name, one)
					}
					if one != two {
						t.Errorf("%q, %s\n    reference: %s\n    subject:   %s", m.args, v.name, one, two)
					}
					mu.Lock()
					if let := strings.HasPrefix(one, "put") || strings.HasPrefix(one, "HTTP") || strings.HasPrefix(one, "TLS") || strings.HasPrefix(one, "success true"); let {
						got["let in"]++
					} else {
						got["refused"]++
					}
					mu.Unlock()
				}
			})
		}
	})
	t.Logf("visitors: %v", got)
	if met == len(all) && (got["let in"] < 80 || got["refused"] < 50) {
		t.Errorf("too few visitors")
	}
}
