package control

import (
	"context"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

const healthEvery = time.Second

// watchHealth keeps the answer to health checks until ctx ends.
func (s *Service) watchHealth(ctx context.Context) {
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	behind := s.view().Index() // what the plane must have applied by the next look
	for {
		state := healthpb.HealthCheckResponse_NOT_SERVING
		if s.healthy(behind) {
			state = healthpb.HealthCheckResponse_SERVING
		}
		s.health.SetServingStatus("", state)
		behind = s.view().Index()
		select {
		case <-ctx.Done():
			s.health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
			return
		case <-tick.C:
		}
	}
}

// healthy says whether codes can be checked and what was committed up to index is in
// force.
func (s *Service) healthy(index uint64) bool {
	_, made := s.view().Settings()
	return made && s.store.Leader() && s.gateway.Applied() >= index
}
