package startup

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"milepost.dev/test/compat/harness"
)

// node is what kubeadm has laid out before the kubelet starts etcd from its static pod: certificates and addresses.
type node struct {
	dir, client, peer, metrics string
	ca                         *harness.Authority
	files                      map[string]string
}

func newNode(t *testing.T) *node {
	n := &node{dir: t.TempDir(), client: harness.FreeAddr(t), peer: harness.FreeAddr(t), metrics: harness.FreeAddr(t)}
	pki := filepath.Join(n.dir, "pki")
	if err := os.Mkdir(pki, 0o700); err != nil {
		t.Fatal(err)
	}
	n.ca = harness.NewAuthority(t, pki, "etcd-ca")
	n.files = map[string]string{"ca": n.ca.File}
	// kubeadm's certificates of etcd are for servers and clients at once; that of the API server is for clients alone.
	for name, leaf := range map[string]harness.Leaf{
		"server": {CommonName: "control-plane"}, "peer": {CommonName: "control-plane"},
		"healthcheck-client": {CommonName: "kube-etcd-healthcheck-client", Client: true},
		"apiserver-client":   {CommonName: "kube-apiserver-etcd-client", Client: true},
	} {
		n.files[name+".crt"], n.files[name+".key"] = n.ca.Issue(t, name, leaf)
	}
	return n
}

// manifest is the command of the static pod, flag by flag as kubeadm writes them, in its order.
func (n *node) manifest(modern bool) []string {
	check, progress := "--experimental-initial-corrupt-check=true", "--experimental-watch-progress-notify-interval=5s"
	if modern { // etcd 3.6 and later
		check, progress = "--feature-gates=InitialCorruptCheck=true", "--watch-progress-notify-interval=5s"
	}
	return []string{
		"--advertise-client-urls=https://" + n.client,
		"--cert-file=" + n.files["server.crt"],
		"--client-cert-auth=true",
		"--data-dir=" + filepath.Join(n.dir, "etcd"),
		check,
		progress,
		"--initial-advertise-peer-urls=https://" + n.peer,
		"--initial-cluster=control-plane=https://" + n.peer,
		"--key-file=" + n.files["server.key"],
		"--listen-client-urls=https://" + n.client,
		"--listen-metrics-urls=http://" + n.metrics,
		"--listen-peer-urls=https://" + n.peer,
		"--name=control-plane",
		"--peer-cert-file=" + n.files["peer.crt"],
		"--peer-client-cert-auth=true",
		"--peer-key-file=" + n.files["peer.key"],
		"--peer-trusted-ca-file=" + n.ca.File,
		"--snapshot-count=10000",
		"--trusted-ca-file=" + n.ca.File,
	}
}

// TestKubeadm starts a single control-plane's etcd as kubeadm's manifest does, asks what the kubelet's probes, the API
// server and an administrator ask, and starts it again.
func TestKubeadm(t *testing.T) {
	sides := []struct {
		bin    harness.Binary
		modern bool
	}{{harness.Reference(t), true}, {harness.Subject(t), true}}
	if !harness.SubjectIsReference(t) {
		// Manifests of before etcd 3.6, which etcd 3.7 refuses and we still take.
		sides = append(sides, struct {
			bin    harness.Binary
			modern bool
		}{harness.Subject(t), false})
	}
	ctl := harness.BuildTool(t, "refctl")
	for _, side := range sides {
		t.Run(fmt.Sprintf("%s/modern=%v", side.bin.Name, side.modern), func(t *testing.T) {
			n := newNode(t)
			for start := range 2 {
				p := harness.Launch(t, side.bin, n.dir, n.manifest(side.modern), nil)
				if err := n.probes(p); err != nil {
					t.Fatalf("start %d: %v\n%s", start, err, p.Stderr())
				}
				if err := n.apiServer(start); err != nil {
					t.Fatalf("start %d: %v\n%s", start, err, p.Stderr())
				}
				if err := n.administrator(ctl); err != nil {
					t.Fatalf("start %d: %v\n%s", start, err, p.Stderr())
				}
				if err := n.stranger(); err == nil {
					t.Fatal("who has no certificate was let in")
				}
				p.Kill()
			}
		})
	}
}

// probes are those of the manifest: startup and readiness by /readyz, liveness by /livez, older ones by /health.
func (n *node) probes(p *harness.Process) error {
	for _, path := range []string{"/readyz", "/livez", "/health?exclude=NOSPACE&serializable=true", "/metrics"} {
		err := until(func() error {
			select {
			case <-p.Exited():
				return nil
			default:
			}
			resp, err := http.Get("http://" + n.metrics + path)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != http.StatusOK {
				return fmt.Errorf("%s: %s: %s", path, resp.Status, body)
			}
			return nil
		})
		if err != nil {
			return err
		}
		select {
		case <-p.Exited():
			return fmt.Errorf("it has ended before %s was well", path)
		default:
		}
	}
	return nil
}

func (n *node) tls(name string) (*tls.Config, error) {
	roots := x509.NewCertPool()
	roots.AddCert(n.ca.Cert)
	config := &tls.Config{RootCAs: roots}
	if name != "" {
		pair, err := tls.LoadX509KeyPair(n.files[name+".crt"], n.files[name+".key"])
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func (n *node) dial(name string) (*clientv3.Client, error) {
	config, err := n.tls(name)
	if err != nil {
		return nil, err
	}
	return clientv3.New(clientv3.Config{
		Endpoints: []string{"https://" + n.client}, TLS: config, DialTimeout: 10 * time.Second, Logger: zap.NewNop(),
	})
}

// apiServer writes in a transaction and watches, and after a restart finds what it wrote.
func (n *node) apiServer(start int) error {
	client, err := n.dial("apiserver-client")
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	const key = "/registry/namespaces/kube-system"
	found, err := client.Get(ctx, key)
	if err != nil {
		return err
	}
	if len(found.Kvs) != start {
		return fmt.Errorf("%d namespaces at start %d", len(found.Kvs), start)
	}
	if start > 0 {
		return nil
	}
	watch := client.Watch(clientv3.WithRequireLeader(ctx), "/registry/", clientv3.WithPrefix(), clientv3.WithProgressNotify())
	done, err := client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, "{}")).Else(clientv3.OpGet(key)).Commit()
	if err != nil || !done.Succeeded {
		return fmt.Errorf("the namespace could not be made: %v %v", done, err)
	}
	for update := range watch {
		for _, event := range update.Events {
			if string(event.Kv.Key) == key {
				return nil
			}
		}
	}
	return fmt.Errorf("the watch ended: %w", ctx.Err())
}

// administrator asks with etcd's own etcdctl and the certificate that kubeadm makes for health checks.
func (n *node) administrator(ctl string) error {
	for _, ask := range []struct{ words, answer string }{
		{"endpoint health", "is healthy"},
		{"member list", "started, control-plane, https://" + n.peer + ", https://" + n.client + ", false"},
		{"endpoint status", n.client},
	} {
		args := append([]string{
			"--endpoints=https://" + n.client, "--cacert=" + n.ca.File,
			"--cert=" + n.files["healthcheck-client.crt"], "--key=" + n.files["healthcheck-client.key"],
		}, strings.Fields(ask.words)...)
		out, err := exec.Command(ctl, args...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), ask.answer) {
			return fmt.Errorf("etcdctl %s: %v: %s", ask.words, err, out)
		}
	}
	return nil
}

// stranger has no certificate.
func (n *node) stranger() error {
	client, err := n.dial("")
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	_, err = client.Get(ctx, "a")
	return err
}
