package differential

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"milepost.dev/test/compat/harness"
)

// TestLaterRPCs: RPCs that are not served yet say so in a sentence, so that
// nobody takes them for a fault of his own.
func TestLaterRPCs(t *testing.T) {
	harness.NeedOwnSubject(t)
	server := harness.Start(t, harness.Subject(t), harness.Options{NoSync: true})
	conn := server.Conn(t)
	for _, m := range []string{
		method("Auth", "AuthEnable"), method("Auth", "UserAdd"), method("Auth", "RoleList"),
	} {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		err := conn.Invoke(ctx, m, &emptypb.Empty{}, &emptypb.Empty{})
		cancel()
		if s := status.Convert(err); s.Code() != codes.Unimplemented || len(s.Message()) < 20 {
			t.Errorf("%s: %v", m, s)
		}
	}
}
