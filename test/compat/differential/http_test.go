package differential

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"milepost.dev/test/compat/differ"
	"milepost.dev/test/compat/harness"
)

// page is what an HTTP client sees of an answer.
type page struct {
	status  int
	headers string
	body    string
}

func fetch(side *differ.Side, verb, path string) page {
	req, err := http.NewRequest(verb, side.Server.ClientURL+path, nil)
	if err != nil {
		return page{body: err.Error()}
	}
	req.Close = true
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return page{body: err.Error()}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return page{body: err.Error()}
	}
	var headers []string
	for _, name := range []string{
		"Content-Type", "Allow", "X-Content-Type-Options", "Access-Control-Allow-Origin",
		"Access-Control-Allow-Methods", "Access-Control-Allow-Headers",
	} {
		if v := resp.Header.Get(name); v != "" {
			headers = append(headers, name+": "+v)
		}
	}
	return page{resp.StatusCode, strings.Join(headers, "; "), string(body)}
}

// bothHTTP compares status, the headers that matter, and the body.
func bothHTTP(t *testing.T, p *differ.Pair, verb, path string) {
	t.Helper()
	ref, sub := differ.Both(p, func(side *differ.Side) page { return fetch(side, verb, path) })
	if path == "/metrics" {
		ref.body, sub.body = "", "" // its numbers differ; its names are checked apart
	}
	if ref != sub {
		p.Finding("http", verb+" "+path, fmt.Sprintf("%+v", ref), fmt.Sprintf("%+v", sub))
	}
}

// TestHTTP compares the plain HTTP pages of the client port.
func TestHTTP(t *testing.T) {
	pair := differ.StartPair(t, harness.Options{NoSync: true})
	for _, path := range []string{
		"/version", "/health", "/health?serializable=true", "/health?exclude=NOSPACE", "/health?exclude=NOSPACE&exclude=CORRUPT",
		"/metrics", "/", "/nothing", "/v2/keys", "/versionx", "/config/local/log",
	} {
		for _, verb := range []string{"GET", "POST", "HEAD", "OPTIONS", "PUT"} {
			bothHTTP(t, pair, verb, path)
		}
	}
}
