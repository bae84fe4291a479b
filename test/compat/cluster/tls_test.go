package cluster

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"milepost.dev/test/compat/harness"
)

// peerCerts are the flags of members that show each other certificates of one
// authority and accept no others.
func peerCerts(t *testing.T, a *harness.Authority, name string) []string {
	t.Helper()
	cert, key := a.Issue(t, name, harness.Leaf{CommonName: "member"})
	return []string{
		"--peer-cert-file=" + cert, "--peer-key-file=" + key, "--peer-trusted-ca-file=" + a.File,
		"--peer-client-cert-auth=true",
	}
}

// TestPeersOverTLS: two of ours and an etcd that know each other by certificates
// alone go through bad luck of their network as they do without; whoever shows
// no certificate, a revoked one, or one of another name or authority is not
// heard, and a member that does so is not one until it shows the right one.
func TestPeersOverTLS(t *testing.T) {
	parallel(t)
	dir := t.TempDir()
	authority, other := harness.NewAuthority(t, dir, "peers"), harness.NewAuthority(t, dir, "others")
	subject := harness.Subject(t)
	faults := slices.DeleteFunc(Faults(), func(f Fault) bool {
		switch f.Name {
		case "leader killed", "leader isolated", "leader mute", "follower deaf", "connections reset", "slow lines", "all killed":
			return false
		}
		return true
	})
	revokedCert, revokedKey := authority.Issue(t, "revoked", harness.Leaf{CommonName: "member"})
	flags := append(peerCerts(t, authority, "member"),
		"--peer-cert-allowed-cn=member", "--peer-crl-file="+authority.Revoke(t, "list", revokedCert))
	c := history(t, []harness.Binary{subject, subject, harness.Reference(t)}, faults, rounds(t), flags...)
	if t.Failed() {
		return
	}
	ctx := deadline(t, time.Minute)
	counts := newTally(t, "let in with a certificate", "kept out", "member kept out", "member back")
	cert, key := authority.Issue(t, "friend", harness.Leaf{CommonName: "member"})
	visitorCert, visitorKey := authority.Issue(t, "visitor", harness.Leaf{CommonName: "visitor"})
	foreignCert, foreignKey := other.Issue(t, "foreigner", harness.Leaf{CommonName: "member"})
	foreigner := authority.ClientTLS(t, "", "")
	foreigner.Certificates = other.ClientTLS(t, foreignCert, foreignKey).Certificates
	for _, m := range c.Members() {
		for who, config := range map[string]*tls.Config{
			"nobody": authority.ClientTLS(t, "", ""), "a foreigner": foreigner, "a friend": authority.ClientTLS(t, cert, key),
			"another name": authority.ClientTLS(t, visitorCert, visitorKey), "a revoked one": authority.ClientTLS(t, revokedCert, revokedKey),
		} {
			status, err := visit(m.PeerURL+"/version", config)
			if (err == nil) != (who == "a friend") {
				t.Errorf("%s at the peer port of %s: %d, %v", who, m, status, err)
			}
			if err == nil {
				counts.add("let in with a certificate", 1)
			} else {
				counts.add("kept out", 1)
			}
		}
		if status, err := visit(strings.Replace(m.PeerURL, "https:", "http:", 1)+"/version", nil); err == nil && status != http.StatusBadRequest {
			t.Errorf("without TLS at the peer port of %s: %d", m, status)
		}
		counts.add("kept out", 1)
	}
	// One of ours with the certificate of another authority.
	victim := c.Members()[0]
	_, err := victim.Terminate(30 * time.Second)
	must(t, err)
	before := len(victim.Log())
	victim.Args(peerCerts(t, other, "stranger")...)
	must(t, victim.Start())
	harness.Eventually(t, 30*time.Second, func() error {
		if !regexp.MustCompile(`(?i)certificate`).MatchString(victim.Log()[before:]) {
			return fmt.Errorf("%s says nothing about certificates: %s", victim, victim.LogTail(3))
		}
		return nil
	})
	client, err := newClient(endpoints(c.Members()[1:]))
	must(t, err)
	defer client.Close()
	_, err = client.Put(ctx, "beside a stranger", "1")
	must(t, err)
	if status, err := victim.Status(ctx); err == nil && status.Leader != 0 {
		t.Errorf("%s shows a foreign certificate and has a leader: %v", victim, status)
	}
	counts.add("member kept out", 1)
	victim.Kill()
	victim.args = nil
	must(t, victim.Start())
	must(t, victim.WaitReady(ctx))
	_, err = c.SameHashes(ctx)
	must(t, err)
	counts.add("member back", 1)
}

// visit asks for a page with a connection of its own.
func visit(url string, config *tls.Config) (int, error) {
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, Timeout: 15 * time.Second}
	resp, err := client.Get(url)
	if err != nil {
		return 0, err
	}
	resp.Body.Close()
	return resp.StatusCode, nil
}

// TestPeersOverAutoTLS: members that make their own certificates.
func TestPeersOverAutoTLS(t *testing.T) {
	parallel(t)
	ctx := deadline(t, 2*time.Minute)
	c := started(t, []harness.Binary{harness.Subject(t), harness.Subject(t), harness.Reference(t)}, "--peer-auto-tls=true")
	counts := newTally(t, "equal hashes")
	writeThroughEach(ctx, t, c, "first")
	for _, m := range c.Members() {
		m.Kill()
		must(t, m.Start())
		must(t, c.WaitReady(ctx))
	}
	writeThroughEach(ctx, t, c, "second")
	_, err := c.SameHashes(ctx)
	must(t, err)
	counts.add("equal hashes", 3)
}
