package differ

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// AliasLease gives a lease id that this server has chosen the name both sides
// share. Names are negative numbers that no generated request uses.
func (s *Side) AliasLease(id, alias int64) { s.leaseAlias[id] = alias }

// LeaseOf is the inverse: the id this server knows under the shared name. A
// number that is no alias stands for itself.
func (s *Side) LeaseOf(alias int64) int64 {
	for id, a := range s.leaseAlias {
		if a == alias {
			return id
		}
	}
	return alias
}

func (s *Side) masked(a Answer) Answer {
	out := Answer{Status: a.Status}
	for _, m := range a.Messages {
		out.Messages = append(out.Messages, s.Masked(m))
	}
	return out
}

// Masked returns a copy of m in which the fields that may differ between two
// healthy servers are replaced by what must not: whether they are set, and
// whether they name the server itself. These are all:
//
//	header   member_id, cluster_id, raft_term
//	leases   ids chosen by the server; remaining TTL (only its sign stays)
//	members  ids and own URLs
//	alarms   the own member id, also inside Status.errors
//	Status   leader, raft term and indexes, file sizes (the engines differ)
//	Hash     the hash of the whole file (the engines differ)
func (s *Side) Masked(m proto.Message) proto.Message {
	c := proto.Clone(m)
	s.walk(c.ProtoReflect())
	return c
}

func (s *Side) walk(m protoreflect.Message) {
	switch v := m.Interface().(type) {
	case *pb.ResponseHeader:
		v.MemberId = s.ownOrSet(v.MemberId, s.MemberID)
		v.ClusterId = s.ownOrSet(v.ClusterId, s.ClusterID)
		v.RaftTerm = set(v.RaftTerm)
	case *pb.LeaseTimeToLiveResponse:
		v.TTL = min(v.TTL, 0)
	case *pb.Member:
		v.ID = s.ownOrSet(v.ID, s.MemberID)
		s.maskURLs(v.PeerURLs)
		s.maskURLs(v.ClientURLs)
	case *pb.AlarmMember:
		v.MemberID = s.ownOrSet(v.MemberID, s.MemberID)
	case *pb.StatusResponse:
		v.Leader = s.ownOrSet(v.Leader, s.MemberID)
		v.RaftTerm = set(v.RaftTerm)
		v.RaftIndex, v.RaftAppliedIndex = set(v.RaftIndex), set(v.RaftAppliedIndex)
		v.DbSize, v.DbSizeInUse = set(v.DbSize), 0
		for i, text := range v.Errors {
			text = strings.ReplaceAll(text, strconv.FormatUint(s.MemberID, 10), "OWN")
			// protobuf's text form puts one or two spaces between fields
			v.Errors[i] = strings.Join(strings.Fields(text), " ")
		}
	case *pb.HashResponse:
		v.Hash = 0
	}
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		switch {
		case field.IsList() && field.Message() != nil:
			list := value.List()
			for i := range list.Len() {
				s.walk(list.Get(i).Message())
			}
		case field.IsMap():
		case field.Message() != nil:
			s.walk(value.Message())
		case field.Kind() == protoreflect.Int64Kind && (field.Name() == "lease" || field.Name() == "ID"):
			if alias, known := s.leaseAlias[value.Int()]; known {
				m.Set(field, protoreflect.ValueOfInt64(alias))
			}
		}
		return true
	})
}

// ownOrSet keeps the difference between none (0), own (1) and foreign (2). It
// changes nothing when applied again.
func (s *Side) ownOrSet(id, own uint64) uint64 {
	switch id {
	case 0:
		return 0
	case own, 1:
		return 1
	default:
		return 2
	}
}

func set[N int64 | uint64](n N) N {
	if n == 0 {
		return 0
	}
	return 1
}

func (s *Side) maskURLs(urls []string) {
	for i, u := range urls {
		switch u {
		case s.Server.ClientURL:
			urls[i] = "own client URL"
		case s.Server.PeerURL:
			urls[i] = "own peer URL"
		}
	}
}

// longText finds quoted text that is too long to read.
var longText = regexp.MustCompile(`"(?:[^"\\]|\\.){120,}"`)

// Show prints a message on one line, with long byte strings cut short.
func Show(m proto.Message) string {
	if m == nil {
		return ""
	}
	text := prototext.MarshalOptions{Multiline: false}.Format(m)
	text = longText.ReplaceAllStringFunc(text, func(q string) string {
		return fmt.Sprintf("%s…%s<%d chars>", q[:40], q[len(q)-24:], len(q)-2)
	})
	if len(text) > 6000 {
		text = text[:6000] + fmt.Sprintf("… <%d chars>", len(text))
	}
	return text
}
