package differential

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
	"google.golang.org/protobuf/proto"

	"milepost.dev/test/compat/differ"
)

// rawCall is one HTTP/2 request as no gRPC library would send it.
type rawCall struct {
	name    string
	verb    string
	path    string
	headers map[string]string
	body    []byte
	look    looking
}

// looking says how much of an answer is compared.
type looking int

const (
	// all of it: HTTP status, gRPC code and message.
	all looking = iota
	// code: the message is the gRPC library's own.
	code
	// refused: it must fail, but libraries differ in what they call it.
	refused
)

// framedMessage puts gRPC's five bytes before a message.
func framedMessage(flag byte, message []byte) []byte {
	head := []byte{flag, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(head[1:], uint32(len(message)))
	return append(head, message...)
}

func (c rawCall) send(side *differ.Side) string {
	transport := &http2.Transport{
		AllowHTTP: true,
		DialTLSContext: func(ctx context.Context, network, addr string, _ *tls.Config) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, addr)
		},
	}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, c.verb, side.Server.ClientURL+c.path, bytes.NewReader(c.body))
	if err != nil {
		return err.Error()
	}
	req.Header.Set("content-type", "application/grpc")
	req.Header.Set("te", "trailers")
	for name, value := range c.headers {
		req.Header.Set(name, value)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return "no answer"
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return "answer cut off"
	}
	status, message := resp.Trailer.Get("grpc-status"), resp.Trailer.Get("grpc-message")
	if status == "" {
		status, message = resp.Header.Get("grpc-status"), resp.Header.Get("grpc-message")
	}
	switch {
	case c.look == code:
		message = ""
	case c.look == refused && status != "" && status != "0":
		return "refused"
	}
	return fmt.Sprintf("http %d, grpc-status %q, message %q", resp.StatusCode, status, message)
}

// TestRawCalls: calls that only a broken or hostile client makes.
func TestRawCalls(t *testing.T) {
	pair := startPair(t)
	get, err := proto.Marshal(&pb.RangeRequest{Key: []byte("a")})
	if err != nil {
		t.Fatal(err)
	}
	const path = "/etcdserverpb.KV/Range"
	good := framedMessage(0, get)
	for _, call := range []rawCall{
		{"as it should be", "POST", path, nil, good, all},
		{"api version not UTF-8", "POST", path, map[string]string{"client-api-version": "\xff\xfe"}, good, all},
		{"api version UTF-8", "POST", path, map[string]string{"client-api-version": "é"}, good, all},
		{"any leader demand", "POST", path, map[string]string{"hasleader": "yes"}, good, all},
		{"content type with codec", "POST", path, map[string]string{"content-type": "application/grpc+proto"}, good, all},
		{"other content type", "POST", path, map[string]string{"content-type": "text/plain"}, good, code},
		{"a field of the future", "POST", path, nil, framedMessage(0, append([]byte{0xc0, 0x3e, 0x05}, get...)), all},
		{"no such wire type", "POST", path, nil, framedMessage(0, []byte{0xff, 0xff, 0x01, 0x05}), code},
		{"broken message", "POST", path, nil, framedMessage(0, []byte{0x0a, 0x7f}), code},
		{"wrong wire type", "POST", path, nil, framedMessage(0, []byte{0x08, 0x05}), refused},
		{"compressed by nothing", "POST", path, nil, framedMessage(1, get), code},
		{"unknown compression", "POST", path, map[string]string{"grpc-encoding": "snappy"}, framedMessage(1, get), code},
		{"bad timeout", "POST", path, map[string]string{"grpc-timeout": "soon"}, good, code},
		{"no time", "POST", path, map[string]string{"grpc-timeout": "0n"}, good, code},
		{"no service", "POST", "/nothing", nil, good, code},
		{"no such method", "POST", "/etcdserverpb.KV/Nothing", nil, good, all},
		{"no such service", "POST", "/a.B/C", nil, good, all},
		{"cut off", "POST", path, nil, good[:len(good)-1], refused},
		{"length of 4 GiB", "POST", path, nil, []byte{0, 0xff, 0xff, 0xff, 0xff}, all},
	} {
		ref, sub := differ.Both(pair, call.send)
		t.Logf("%-24s %s", call.name, ref)
		if ref != sub {
			pair.Finding("raw call", call.name, ref, sub)
		}
	}
	everything(pair)
}
