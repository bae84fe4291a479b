package differ

import (
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// framed is a group of replies exactly as they came.
func framed(replies []*pb.WatchResponse) Answer {
	a := Answer{Status: status.New(codes.OK, "")}
	for _, r := range replies {
		a.Messages = append(a.Messages, r)
	}
	return a
}

// joined is the same group with neighbouring event replies made into one; such
// a reply has no header, because its revision depends on where the cut was.
func joined(replies []*pb.WatchResponse) Answer {
	a := Answer{Status: status.New(codes.OK, "")}
	var events *pb.WatchResponse
	for _, r := range replies {
		if len(r.Events) == 0 {
			a.Messages, events = append(a.Messages, r), nil
			continue
		}
		if events == nil {
			events = &pb.WatchResponse{WatchId: r.WatchId}
			a.Messages = append(a.Messages, events)
		}
		plain := proto.Clone(r).(*pb.WatchResponse)
		plain.Header, plain.Events, plain.Fragment = nil, nil, false
		if !proto.Equal(plain, &pb.WatchResponse{WatchId: r.WatchId}) {
			a.Messages = append(a.Messages, plain) // created, canceled or a reason beside events
		}
		events.Events = append(events.Events, r.Events...)
	}
	return a
}

// FrameFault checks the rules that hold for the replies of one watcher however
// they are cut: events rise by revision, all events of one revision come in
// one reply unless it is marked as a fragment, and a reply's header is never
// behind its events. It returns a complaint, or "".
func FrameFault(replies []*pb.WatchResponse) string {
	last, open := int64(0), false
	for _, r := range replies {
		if r.Created {
			last, open = 0, false
		}
		for i, ev := range r.Events {
			rev := ev.Kv.ModRevision
			switch {
			case rev < last:
				return fmt.Sprintf("an event of revision %d comes after one of %d", rev, last)
			case rev == last && i == 0 && !open:
				return fmt.Sprintf("the events of revision %d are spread over replies that are no fragments", rev)
			case r.Header.GetRevision() < rev:
				return fmt.Sprintf("a reply of revision %d carries an event of %d", r.Header.GetRevision(), rev)
			}
			last = rev
		}
		if len(r.Events) > 0 {
			open = r.Fragment
		}
	}
	if open {
		return "the last reply is marked as a fragment"
	}
	return ""
}
