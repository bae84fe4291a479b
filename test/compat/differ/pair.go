// Package differ puts one question to two servers and compares the answers.
//
// An answer is everything a client can see: the messages, in order, and the
// final status with code, text and details. Before the comparison a short list
// of fields is masked (mask.go); nothing else may differ. Every question is
// counted by kind and outcome (table.go), so that a suite can prove that it
// asked what it claims to have asked.
//
//	            ┌──► reference ──► answer ─┐
//	question ───┤                          ├─ mask ─► equal? ─► table, findings
//	            └──► subject ────► answer ─┘
package differ

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"milepost.dev/test/compat/harness"
)

// callWithin bounds one call: a server that does not answer is a finding.
const callWithin = 20 * time.Second

// Once the two states differ, every later answer does too: a suite tells the
// first few differences of each kind and gives up after some more.
const (
	toldPerKind = 4
	maxTold     = 30
)

// Side is one of the two servers with the connection used for questions.
type Side struct {
	Server *harness.Server
	Conn   *grpc.ClientConn
	// MemberID and ClusterID are what this server calls itself.
	MemberID, ClusterID uint64
	// leaseAlias maps the lease ids that this server has chosen to small
	// numbers that are the same on both sides.
	leaseAlias map[int64]int64
}

// Pair is the reference and the subject, asked in step.
type Pair struct {
	Ref, Sub *Side
	Table    *Table

	t      testing.TB
	found  map[string]int
	told   int
	report *os.File
}

// Answer is what one server said: messages in order, then the final status.
type Answer struct {
	Messages []proto.Message
	Status   *status.Status
}

// OK tells whether the call ended without an error.
func (a Answer) OK() bool { return a.Status.Code() == codes.OK }

// StartPair starts both servers with the same options on fresh directories.
// Differences are also appended to the file named by COMPAT_REPORT, if any.
func StartPair(t testing.TB, opts harness.Options) *Pair {
	t.Helper()
	ref := harness.Start(t, harness.Reference(t), opts)
	sub := harness.Start(t, harness.Subject(t), opts)
	p := &Pair{Ref: newSide(t, ref), Sub: newSide(t, sub), Table: NewTable(), t: t, found: map[string]int{}}
	t.Cleanup(func() {
		for kind, n := range p.found {
			t.Logf("%d differences of kind %q", n, kind)
		}
	})
	if name := os.Getenv("COMPAT_REPORT"); name != "" {
		f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		p.report = f
	}
	return p
}

func newSide(t testing.TB, server *harness.Server) *Side {
	t.Helper()
	side := &Side{Server: server, Conn: server.Conn(t), leaseAlias: map[int64]int64{}}
	ctx, cancel := context.WithTimeout(context.Background(), callWithin)
	defer cancel()
	resp, err := pb.NewMaintenanceClient(side.Conn).Status(ctx, &pb.StatusRequest{})
	if err != nil {
		t.Fatalf("%s: status: %v", server.Binary.Name, err)
	}
	side.MemberID, side.ClusterID = resp.Header.MemberId, resp.Header.ClusterId
	return side
}

// Both runs one function on the two sides at the same time and returns what
// came of it, the reference's result first.
func Both[R any](p *Pair, do func(*Side) R) (ref, sub R) {
	var done sync.WaitGroup
	done.Add(1)
	go func() {
		defer done.Done()
		ref = do(p.Ref)
	}()
	sub = do(p.Sub)
	done.Wait()
	return ref, sub
}

// Invoke asks a unary question, compares, and returns the reference's answer.
// into gives an empty response of the right type.
func (p *Pair) Invoke(kind, method string, req proto.Message, into func() proto.Message) Answer {
	p.t.Helper()
	return p.InvokeEach(kind, method, func(*Side) proto.Message { return req }, into, nil)
}

// InvokeEach is Invoke for questions that name the server itself, and for
// answers that need a canonical form before the comparison (canon may be nil).
func (p *Pair) InvokeEach(
	kind, method string,
	req func(*Side) proto.Message,
	into func() proto.Message,
	canon func(req, resp proto.Message),
) Answer {
	p.t.Helper()
	return p.Ask(kind, method, req(p.Ref), func(ctx context.Context, side *Side) Answer {
		question, resp := req(side), into()
		err := side.Conn.Invoke(ctx, method, question, resp)
		if err != nil {
			return Answer{Status: status.Convert(err)}
		}
		if canon != nil {
			canon(question, resp)
		}
		return Answer{Messages: []proto.Message{resp}, Status: status.New(codes.OK, "")}
	})
}

// Ask runs a call of any shape on both sides and compares what came back.
func (p *Pair) Ask(kind, method string, shown proto.Message, call func(context.Context, *Side) Answer) Answer {
	p.t.Helper()
	ref, sub := Both(p, func(side *Side) Answer {
		ctx, cancel := context.WithTimeout(context.Background(), callWithin)
		defer cancel()
		return call(ctx, side)
	})
	p.Table.Count(kind, ref.Status.Code())
	select {
	case <-p.Ref.Server.Exited():
		// Some requests stop etcd itself. They are no standard for anybody.
		p.t.Fatalf("the reference died over [%s] %s %s\n%s", kind, method, Show(shown), p.Ref.Server.LogTail(30))
	default:
	}
	p.Compare(kind, method+" "+Show(shown), ref, sub)
	return ref
}

// Compare masks both answers and records a finding when they differ.
func (p *Pair) Compare(kind, question string, ref, sub Answer) {
	p.t.Helper()
	refMasked, subMasked := p.Ref.masked(ref), p.Sub.masked(sub)
	if sameAnswer(refMasked, subMasked) {
		return
	}
	p.Finding(kind, question, showAnswer(refMasked), showAnswer(subMasked))
}

// Finding records one difference and fails the test.
func (p *Pair) Finding(kind, question, ref, sub string) {
	p.t.Helper()
	p.found[kind]++
	if p.found[kind] > toldPerKind {
		p.t.Fail()
		return
	}
	p.told++
	text := fmt.Sprintf("[%s] %s\n    reference: %s\n    subject:   %s%s", kind, question, ref, sub, whereTheyPart(ref, sub))
	if p.report != nil {
		fmt.Fprintf(p.report, "%s %s\n\n", p.t.Name(), text)
	}
	if p.told >= maxTold {
		p.t.Log("\n" + p.Table.String())
		p.t.Fatalf("too many differences; the last one: %s", text)
	}
	p.t.Error(text)
}

// whereTheyPart points at the first difference of two long texts.
func whereTheyPart(a, b string) string {
	if max(len(a), len(b)) < 300 {
		return ""
	}
	at := 0
	for at < min(len(a), len(b)) && a[at] == b[at] {
		at++
	}
	around := func(s string) string { return s[max(0, min(at, len(s))-80):min(len(s), at+160)] }
	return fmt.Sprintf("\n    they part: reference …%s…\n               subject   …%s…", around(a), around(b))
}

// Stream collects a stream's messages until it ends.
func Stream[M any, PM interface {
	*M
	proto.Message
}](recv func() (PM, error)) Answer {
	var a Answer
	for {
		msg, err := recv()
		if errors.Is(err, io.EOF) {
			a.Status = status.New(codes.OK, "")
			return a
		}
		if err != nil {
			a.Status = status.Convert(err)
			return a
		}
		a.Messages = append(a.Messages, msg)
	}
}

func sameAnswer(a, b Answer) bool {
	if !proto.Equal(a.Status.Proto(), b.Status.Proto()) || len(a.Messages) != len(b.Messages) {
		return false
	}
	for i := range a.Messages {
		if !proto.Equal(a.Messages[i], b.Messages[i]) {
			return false
		}
	}
	return true
}

func showAnswer(a Answer) string {
	var parts []string
	for _, m := range a.Messages {
		parts = append(parts, "{"+Show(m)+"}")
	}
	if !a.OK() {
		parts = append(parts, fmt.Sprintf("error %d %q", a.Status.Code(), a.Status.Message()))
		if len(a.Status.Proto().Details) > 0 {
			parts = append(parts, fmt.Sprintf("details %v", a.Status.Details()))
		}
	}
	if len(parts) == 0 {
		return "(nothing)"
	}
	return strings.Join(parts, " ")
}

// Reconnect opens new connections, as after a restart of both servers.
func (p *Pair) Reconnect() {
	p.t.Helper()
	for _, side := range []*Side{p.Ref, p.Sub} {
		side.Conn = side.Server.Conn(p.t)
	}
}
