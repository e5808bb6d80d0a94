package control

import (
	"context"
	"time"

	"vpnd/acl/language"
	"vpnd/internal/dataplane"
)

// Status is what this gateway is and how it does.
type Status struct {
	Version, Node string
	Leader        bool
	Started       time.Time
	Applied       uint64 // the index that the plane holds
	Plane         dataplane.Stats
	PlaneErr      error    // why Plane is empty
	Spellings     []string // devices (USER/DEVICE) whose key has a second spelling

	Attention []string // what else is wrong, in words

	Ignored language.ErrorList // parts of the policy in force that this version refuses
}

// Status answers for this gateway.
func (s *Service) Status(ctx context.Context) Status {
	st := Status{
		Version: s.version, Node: s.store.NodeID(), Leader: s.store.Leader(),
		Started: s.started, Applied: s.gateway.Applied(), Spellings: s.spellings(s.View()),
	}
	if s.attention != nil {
		st.Attention = s.attention()
	}
	if r := s.gateway.Rules(); r != nil {
		st.Ignored = r.Policy().Ignored()
	}
	// No peer has the zero key: what is asked for is the plane alone, not 50,000 peers.
	if st.Plane, st.PlaneErr = s.gateway.Stats(ctx, dataplane.Key{}); st.PlaneErr != nil {
		s.log.Warn("the data plane's state could not be read", "what", "plane.read", "why", st.PlaneErr)
		st.Plane = dataplane.Stats{}
	}
	return st
}

// Healthy says whether codes can be checked and what was committed up to index is in
// force.
func (s *Service) Healthy(index uint64) bool {
	_, made := s.View().Settings()
	return made && s.store.Leader() && s.gateway.Applied() >= index
}

// Stats reads the plane's counters of these peers, or of all.
func (s *Service) Stats(ctx context.Context, keys ...dataplane.Key) (dataplane.Stats, error) {
	return s.gateway.Stats(ctx, keys...)
}
