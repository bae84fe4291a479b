package differential

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"

	"milepost.dev/test/compat/differ"
)

// TestAuthority: what stands in :authority is of no interest to etcd. Old
// clients put their target there as they got it, with scheme and path.
func TestAuthority(t *testing.T) {
	pair := startPair(t)
	for _, authority := range []string{
		"127.0.0.1:2379", "http://127.0.0.1:2379", "etcd-endpoints://0xc000420000/127.0.0.1:2379", "a,b,c", "localhost/etcd",
		"#initially=[http://127.0.0.1:2379]", "", "endpoint://client-7/127.0.0.1:2379",
	} {
		ref, sub := differ.Both(pair, func(side *differ.Side) string { return callAs(side, authority) })
		if ref != sub {
			pair.Finding("authority", fmt.Sprintf("%q", authority), ref, sub)
		}
		if !strings.Contains(ref, "grpc-status 0") {
			t.Errorf("the reference does not serve authority %q: %s", authority, ref)
		}
	}
}

// callAs sends one Range in bare HTTP/2 frames, since client libraries of
// today no longer send such an authority.
func callAs(side *differ.Side, authority string) string {
	tcp, err := net.Dial("tcp", strings.TrimPrefix(side.Server.ClientURL, "http://"))
	if err != nil {
		return err.Error()
	}
	defer tcp.Close()
	if err := tcp.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err.Error()
	}
	framer := http2.NewFramer(tcp, tcp)
	if err := sendRange(tcp, framer, authority); err != nil {
		return err.Error()
	}
	status := "none"
	headers := hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		if f.Name == "grpc-status" {
			status = f.Value
		}
	})
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return "connection ended: " + err.Error()
		}
		switch f := frame.(type) {
		case *http2.HeadersFrame:
			if _, err := headers.Write(f.HeaderBlockFragment()); err != nil {
				return err.Error()
			}
			if f.StreamEnded() {
				return "grpc-status " + status
			}
		case *http2.RSTStreamFrame:
			return "stream reset: " + f.ErrCode.String()
		case *http2.GoAwayFrame:
			return "connection closed: " + f.ErrCode.String()
		}
	}
}

func sendRange(to io.Writer, framer *http2.Framer, authority string) error {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", pb.KV_Range_FullMethodName}, {":authority", authority},
		{"content-type", "application/grpc"}, {"te", "trailers"}, {"user-agent", "grpc-go/1.26.0"},
	} {
		if err := encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}); err != nil {
			return err
		}
	}
	message, err := proto.Marshal(&pb.RangeRequest{Key: []byte("a")})
	if err != nil {
		return err
	}
	if _, err := io.WriteString(to, http2.ClientPreface); err != nil {
		return err
	}
	if err := framer.WriteSettings(); err != nil {
		return err
	}
	if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true}); err != nil {
		return err
	}
	return framer.WriteData(1, true, framedMessage(0, message))
}
