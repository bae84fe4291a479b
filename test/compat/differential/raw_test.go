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
	// text is whether the message of the status is compared too. Where the
	// fault is in the framing, it is the library's own and only the code counts.
	text bool
}

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
		if value == "" {
			req.Header.Del(name)
			continue
		}
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
	if !c.text {
		message = ""
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
		{"as it should be", "POST", path, nil, good, true},
		{"api version not UTF-8", "POST", path, map[string]string{"client-api-version": "\xff\xfe"}, good, true},
		{"api version UTF-8", "POST", path, map[string]string{"client-api-version": "é"}, good, true},
		{"any leader demand", "POST", path, map[string]string{"hasleader": "yes"}, good, true},
		{"content type with codec", "POST", path, map[string]string{"content-type": "application/grpc+proto"}, good, true},
		{"other content type", "POST", path, map[string]string{"content-type": "text/plain"}, good, false},
		{"a field of the future", "POST", path, nil, framedMessage(0, append([]byte{0xc0, 0x3e, 0x05}, get...)), true},
		{"no such wire type", "POST", path, nil, framedMessage(0, []byte{0xff, 0xff, 0x01, 0x05}), false},
		{"broken message", "POST", path, nil, framedMessage(0, []byte{0x0a, 0x7f}), false},
		{"wrong wire type", "POST", path, nil, framedMessage(0, []byte{0x08, 0x05}), false},
		{"compressed by nothing", "POST", path, nil, framedMessage(1, get), false},
		{"unknown compression", "POST", path, map[string]string{"grpc-encoding": "snappy"}, framedMessage(1, get), false},
		{"bad timeout", "POST", path, map[string]string{"grpc-timeout": "soon"}, good, false},
		{"no time", "POST", path, map[string]string{"grpc-timeout": "0n"}, good, false},
		{"no service", "POST", "/nothing", nil, good, false},
		{"no such method", "POST", "/etcdserverpb.KV/Nothing", nil, good, true},
		{"no such service", "POST", "/a.B/C", nil, good, true},
		{"cut off", "POST", path, nil, good[:len(good)-1], false},
		{"length of 4 GiB", "POST", path, nil, []byte{0, 0xff, 0xff, 0xff, 0xff}, true},
	} {
		ref, sub := differ.Both(pair, call.send)
		t.Logf("%-24s %s", call.name, ref)
		if ref != sub {
			pair.Finding("raw call", call.name, ref, sub)
		}
	}
	everything(pair)
}
