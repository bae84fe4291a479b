package harness

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Authority is a certificate authority that lives for one test run.
type Authority struct {
	// Dir is where it writes its files.
	Dir string
	// File is the path of its own certificate, PEM.
	File string
	Cert *x509.Certificate

	key    crypto.Signer
	serial int64
}

// Leaf says what a certificate is for. The zero value is a server certificate
// for 127.0.0.1, ::1 and localhost, valid now.
type Leaf struct {
	CommonName string
	// Client makes it a client's certificate, without names of hosts.
	Client bool
	// DNS and IPs replace the names of a server's certificate.
	DNS []string
	IPs []net.IP
	// Expired lets it end an hour ago.
	Expired bool
}

// NewAuthority makes an authority with files in dir.
func NewAuthority(t testing.TB, dir, name string) *Authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(time.Now().UnixNano()),
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().Add(-2 * time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a := &Authority{Dir: dir, File: filepath.Join(dir, name+".pem"), Cert: cert, key: key, serial: 1000}
	writePEM(t, a.File, "CERTIFICATE", der)
	return a
}

// Issue signs a certificate and writes NAME.crt and NAME.key, PEM.
func (a *Authority) Issue(t testing.TB, name string, leaf Leaf) (certFile, keyFile string) {
	t.Helper()
	a.serial++
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.serial),
		Subject:      pkix.Name{CommonName: leaf.CommonName},
		NotBefore:    time.Now().Add(-90 * time.Minute),
		NotAfter:     time.Now().Add(12 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:     leaf.DNS,
		IPAddresses:  leaf.IPs,
	}
	if leaf.Client {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	} else if len(leaf.DNS)+len(leaf.IPs) == 0 {
		template.DNSNames = []string{"localhost"}
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	}
	if leaf.Expired {
		template.NotAfter = time.Now().Add(-time.Hour)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.Cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(a.Dir, name+".crt"), filepath.Join(a.Dir, name+".key")
	writePEM(t, certFile, "CERTIFICATE", der)
	secret, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, keyFile, "EC PRIVATE KEY", secret)
	return certFile, keyFile
}

// Revoke writes a list of revoked certificates as DER, which is what etcd
// reads, and returns its path.
func (a *Authority) Revoke(t testing.TB, name string, certFiles ...string) string {
	t.Helper()
	list := &x509.RevocationList{
		Number:     big.NewInt(time.Now().UnixNano()),
		ThisUpdate: time.Now().Add(-time.Hour),
		NextUpdate: time.Now().Add(24 * time.Hour),
	}
	for _, file := range certFiles {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber:   readCert(t, file).SerialNumber,
			RevocationTime: time.Now().Add(-time.Hour),
		})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.Cert, a.key)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(a.Dir, name+".crl")
	WriteFile(t, path, der)
	return path
}

// ClientTLS is a client's configuration that trusts this authority alone and,
// where given, shows a certificate.
func (a *Authority) ClientTLS(t testing.TB, certFile, keyFile string) *tls.Config {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(a.Cert)
	config := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
	if certFile != "" {
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config
}

// WriteFile replaces a file whole: it is written beside and renamed, so that a
// server that reads it at any moment reads one version of it.
func WriteFile(t testing.TB, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func readCert(t testing.TB, file string) *x509.Certificate {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		t.Fatalf("%s holds no PEM block", file)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func writePEM(t testing.TB, path, kind string, der []byte) {
	t.Helper()
	WriteFile(t, path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}
