package concurrency

import (
	"context"
	"fmt"
	"testing"

	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
)

// TestElection: campaign, proclaim, leader, observe, resign, and the same with
// what is wrong.
func TestElection(t *testing.T) {
	play(t, func(s *scene) {
		for id := int64(1); id <= 3; id++ {
			s.lease(id, 600)
		}
		named := &v3electionpb.LeaderRequest{Name: []byte("e")}
		_, err := s.election.Leader(s.ctx, named)
		s.note("nobody leads: %s", outcome(err))
		seen, err := s.election.Observe(s.ctx, named)
		s.check(err, "observing")
		look := func() {
			resp, err := seen.Recv()
			if err != nil {
				s.note("observed: %s", outcome(err))
				return
			}
			s.note("observed at %d: %s", resp.Header.Revision, show(resp.Kv))
		}
		won, err := s.election.Campaign(s.ctx, &v3electionpb.CampaignRequest{Name: []byte("e"), Lease: 1, Value: []byte("one")})
		s.note("won: %s %v at %d", outcome(err), leader(won.GetLeader()), won.GetHeader().GetRevision())
		look()
		next := make(chan *v3electionpb.CampaignResponse, 1)
		go func() {
			resp, err := s.election.Campaign(s.ctx, &v3electionpb.CampaignRequest{Name: []byte("e"), Lease: 2, Value: []byte("two")})
			if err != nil {
				s.note("second: %s", outcome(err))
			}
			next <- resp
		}()
		s.awaitKeys("e/", 2)
		for _, value := range []string{"more", "", "more"} {
			said, err := s.election.Proclaim(s.ctx, &v3electionpb.ProclaimRequest{Leader: won.Leader, Value: []byte(value)})
			s.note("proclaimed: %s at %d", outcome(err), said.GetHeader().GetRevision())
			look()
		}
		now, err := s.election.Leader(s.ctx, named)
		s.note("leader: %s %s at %d", outcome(err), show(now.GetKv()), now.GetHeader().GetRevision())
		for _, value := range []string{"more", "again"} {
			again, err := s.election.Campaign(s.ctx, &v3electionpb.CampaignRequest{Name: []byte("e"), Lease: 1, Value: []byte(value)})
			s.note("again: %s %v at %d", outcome(err), leader(again.GetLeader()), again.GetHeader().GetRevision())
		}
		look()
		s.keys("e/")
		stale := &v3electionpb.LeaderKey{Name: won.Leader.Name, Key: won.Leader.Key, Rev: won.Leader.Rev + 100, Lease: 1}
		_, err = s.election.Proclaim(s.ctx, &v3electionpb.ProclaimRequest{Leader: stale, Value: []byte("x")})
		s.note("proclaim of nobody: %s", outcome(err))
		gone, err := s.election.Resign(s.ctx, &v3electionpb.ResignRequest{Leader: stale})
		s.note("resign of nobody: %s at %d", outcome(err), gone.GetHeader().GetRevision())
		gone, err = s.election.Resign(s.ctx, &v3electionpb.ResignRequest{Leader: won.Leader})
		s.note("resigned: %s at %d", outcome(err), gone.GetHeader().GetRevision())
		second := <-next
		s.note("second: %v at %d", leader(second.GetLeader()), second.GetHeader().GetRevision())
		look()
		_, err = s.client.Revoke(s.ctx, 2)
		s.note("revoked: %s", outcome(err))
		third, err := s.election.Campaign(s.ctx, &v3electionpb.CampaignRequest{Name: []byte("e"), Lease: 3})
		s.note("third: %s %v", outcome(err), leader(third.GetLeader()))
		look()
		for _, wrong := range []*v3electionpb.LeaderKey{nil, {}, {Key: []byte("e/3"), Lease: 99}, {Key: []byte("e/3"), Rev: third.Leader.Rev, Lease: 99}} {
			_, err = s.election.Proclaim(s.ctx, &v3electionpb.ProclaimRequest{Leader: wrong})
			s.note("proclaim %v: %s", leader(wrong), outcome(err))
			_, err = s.election.Resign(s.ctx, &v3electionpb.ResignRequest{Leader: wrong})
			s.note("resign %v: %s", leader(wrong), outcome(err))
		}
		_, err = s.election.Campaign(s.ctx, &v3electionpb.CampaignRequest{Name: []byte("e"), Lease: 99})
		s.note("unknown lease: %s", outcome(err))
		s.keys("e/")
	})
}

func leader(key *v3electionpb.LeaderKey) string {
	if key == nil {
		return "none"
	}
	return fmt.Sprintf("%s %s rev %d lease %d", key.Name, key.Key, key.Rev, key.Lease)
}

// TestCampaignGivenUp: a campaign that is cancelled leaves the line.
func TestCampaignGivenUp(t *testing.T) {
	play(t, func(s *scene) {
		s.lease(1, 600)
		s.lease(2, 600)
		_, err := s.election.Campaign(s.ctx, &v3electionpb.CampaignRequest{Name: []byte("e"), Lease: 1, Value: []byte("one")})
		s.check(err, "the first campaign")
		ctx, cancel := context.WithCancel(s.ctx)
		ended := make(chan error, 1)
		go func() {
			_, err := s.election.Campaign(ctx, &v3electionpb.CampaignRequest{Name: []byte("e"), Lease: 2, Value: []byte("two")})
			ended <- err
		}()
		s.awaitKeys("e/", 2)
		cancel()
		s.note("cancelled: %s", outcome(<-ended))
		s.awaitKeys("e/", 1)
		s.keys("e/")
	})
}

// TestObserveFromTheMiddle: who begins to observe sees the leader there is,
// and a stream that is cancelled ends.
func TestObserveFromTheMiddle(t *testing.T) {
	play(t, func(s *scene) {
		s.lease(1, 600)
		won, err := s.election.Campaign(s.ctx, &v3electionpb.CampaignRequest{Name: []byte("e"), Lease: 1, Value: []byte("one")})
		s.check(err, "the campaign")
		for _, value := range []string{"two", "three"} {
			_, err := s.election.Proclaim(s.ctx, &v3electionpb.ProclaimRequest{Leader: won.Leader, Value: []byte(value)})
			s.check(err, "proclaiming")
		}
		ctx, cancel := context.WithCancel(s.ctx)
		seen, err := s.election.Observe(ctx, &v3electionpb.LeaderRequest{Name: []byte("e")})
		s.check(err, "observing")
		resp, err := seen.Recv()
		s.check(err, "the leader")
		s.note("observed at %d: %s", resp.Header.Revision, show(resp.Kv))
		cancel()
		_, err = seen.Recv()
		s.note("cancelled: %s", outcome(err))
	})
}
