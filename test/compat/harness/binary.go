// Package harness starts server programs on loopback and talks to them.
//
// Two kinds of program are known. The *reference* is etcd, built by this
// module from its published source (see ../refetcd). The *subject* is the
// server under test, a finished executable named by MILEPOST_BIN. The harness
// treats both alike: the same flags, the same sockets, the same signals. It
// knows nothing of what is inside either of them.
//
//	test ──Start──► process ──stderr──► DIR/stderr.log
//	  │                │
//	  └──gRPC, HTTP────┘   127.0.0.1, ports picked by the kernel
package harness

import (
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// Binary is a server executable.
type Binary struct {
	// Name is how reports call it: "reference" or "subject".
	Name string
	// Path is the absolute path of the executable.
	Path string
}

// moduleRoot is the folder that holds this module's go.mod.
var moduleRoot = sync.OnceValues(func() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "refetcd", "main.go")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("no folder above the working directory holds refetcd/main.go")
		}
		dir = up
	}
})

// Root returns the folder of this module.
func Root(t testing.TB) string {
	t.Helper()
	root, err := moduleRoot()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// CacheDir is where built helpers are kept between runs: COMPAT_CACHE, or a
// folder below the system's temporary directory.
func CacheDir() string {
	if dir := os.Getenv("COMPAT_CACHE"); dir != "" {
		return dir
	}
	return filepath.Join(os.TempDir(), "milepost-compat-cache")
}

// built remembers the outcome of BuildTool per package within this process.
var built sync.Map

// BuildTool compiles a main package of this module into the cache and returns
// the executable's path. Several test processes may call it at once; a file
// lock lets one of them build.
func BuildTool(t testing.TB, pkg string) string {
	t.Helper()
	once, _ := built.LoadOrStore(pkg, sync.OnceValues(func() (string, error) { return buildTool(pkg) }))
	path, err := once.(func() (string, error))()
	if err != nil {
		t.Fatalf("building %s: %v", pkg, err)
	}
	return path
}

func buildTool(pkg string) (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	dir, err := filepath.Abs(CacheDir())
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(dir, pkg+".lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", err
	}
	out := filepath.Join(dir, pkg)
	// One source makes one binary, from whatever checkout and commit.
	cmd := exec.Command("go", "build", "-p", "1", "-trimpath", "-buildvcs=false", "-o", out, "./"+pkg)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if msg, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w\n%s", err, msg)
	}
	return out, nil
}

// Reference returns etcd, building it first when needed.
func Reference(t testing.TB) Binary {
	t.Helper()
	return Binary{Name: "reference", Path: BuildTool(t, "refetcd")}
}

// Subject returns the server under test. A missing executable fails the test:
// a suite that tests nothing must not look green.
func Subject(t testing.TB) Binary {
	t.Helper()
	path := os.Getenv("MILEPOST_BIN")
	if path == "" {
		path = filepath.Join(Root(t), "..", "..", "target", "ci", "milepost")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("no server to test at %s: build it with `cargo build --profile ci -p milepost`, or name one in MILEPOST_BIN", path)
	}
	return Binary{Name: "subject", Path: path}
}

// SubjectIsReference tells whether etcd is being compared with itself, as is
// done to prove that the suite itself is sound.
func SubjectIsReference(t testing.TB) bool {
	t.Helper()
	reference := Reference(t) // which may still have to be built
	return digest(t, Subject(t).Path) == digest(t, reference.Path)
}

// NeedOwnSubject skips a test whose expectation holds for our server only when
// the suite is run with etcd on both sides.
func NeedOwnSubject(t testing.TB) {
	t.Helper()
	if SubjectIsReference(t) {
		t.Skip("etcd is on both sides: this test is about what only our server promises")
	}
}

// Example returns an example program of crate, which `cargo test` builds beside the subject; env names another. Empty: etcd
// is on both sides, and nothing of ours takes part.
func Example(t testing.TB, crate, name, env string) string {
	t.Helper()
	if path := os.Getenv(env); path != "" {
		return path
	}
	binary := os.Getenv("MILEPOST_BIN")
	if filepath.Base(binary) == "refetcd" || binary == "reference" {
		return ""
	}
	if binary == "" {
		binary = filepath.Join(Root(t), "..", "..", "target", "ci", "milepost")
	}
	path := filepath.Join(filepath.Dir(binary), "..", "debug", "examples", name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: build it with `cargo build -p %s --example %s`, or name it in %s", err, crate, name, env)
	}
	return path
}

func digest(t testing.TB, path string) [sha256.Size]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return [sha256.Size]byte(h.Sum(nil))
}
