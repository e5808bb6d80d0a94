package api

import (
	"context"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

const healthEvery = time.Second

// Run keeps the answer to health checks until ctx ends.
func (e *Edge) Run(ctx context.Context) {
	tick := time.NewTicker(healthEvery)
	defer tick.Stop()
	behind := e.s.View().Index() // what the plane must have applied by the next look
	for {
		state := healthpb.HealthCheckResponse_NOT_SERVING
		if e.s.Healthy(behind) {
			state = healthpb.HealthCheckResponse_SERVING
		}
		e.health.SetServingStatus("", state)
		behind = e.s.View().Index()
		select {
		case <-ctx.Done():
			e.health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
			return
		case <-tick.C:
		}
	}
}
