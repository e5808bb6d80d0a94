package api

import (
	"bytes"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"

	"vpnd/internal/control"
	"vpnd/internal/control/controltest"
	"vpnd/internal/store"
	vpnv1 "vpnd/proto/vpn/v1"
)

// BenchmarkAddDevice adds devices through gRPC with 16 callers, each commit on the disk.
// The plane is a fake: what is measured is gRPC, control, the log and the state.
func BenchmarkAddDevice(b *testing.B) {
	st, err := store.Open(b.Context(), store.Config{Dir: b.TempDir(), Fatal: func(err error) { b.Error(err) }})
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	if err := st.Ready(b.Context()); err != nil {
		b.Fatal(err)
	}
	sealer, err := control.NewSealer(bytes.Repeat([]byte{3}, 32))
	if err != nil {
		b.Fatal(err)
	}
	if _, err := control.Bootstrap(b.Context(), st, sealer, control.BootstrapConfig{Endpoint: "vpn.example.com:51820"}); err != nil {
		b.Fatal(err)
	}
	w := &world{t: b, Service: control.New(control.Config{Store: st, Gateway: &controltest.Gateway{}, Sealer: sealer})}
	w.edge = New(w.Service, slog.New(slog.DiscardHandler))
	cc := w.admin()
	users, devices := vpnv1.NewUserServiceClient(cc), vpnv1.NewDeviceServiceClient(cc)
	for i := range b.N/50 + 1 {
		if _, err := users.AddUser(b.Context(), &vpnv1.AddUserRequest{Name: fmt.Sprintf("user%d", i)}); err != nil {
			b.Fatal(err)
		}
	}
	keys := make([]string, b.N)
	for i := range keys {
		keys[i] = publicKey(b)
	}
	var next atomic.Int64
	b.SetParallelism(8) // times GOMAXPROCS: 16 callers on two cores
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := int(next.Add(1) - 1)
			_, err := devices.AddDevice(b.Context(), &vpnv1.AddDeviceRequest{
				User: fmt.Sprintf("user%d", i/50), Name: fmt.Sprintf("d%d", i), PublicKey: keys[i],
			})
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "devices/s")
}
