package linux

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"vpnd/internal/dataplane"
)

// manyDevices makes n devices with keys that nobody has the private half of.
func manyDevices(n int) []dataplane.Device {
	out := make([]dataplane.Device, n)
	for i := range out {
		var k dataplane.Key
		binary.BigEndian.PutUint32(k[:], uint32(i+1))
		a := netip.AddrFrom4([4]byte{10, 77, byte((i + 2) >> 8), byte(i + 2)})
		var b [16]byte
		b[0], b[1] = 0xfd, 0x77
		binary.BigEndian.PutUint32(b[12:], uint32(i+2))
		out[i] = dataplane.Device{ID: fmt.Sprint(i), Name: fmt.Sprint("u/d", i), PublicKey: k, PresharedKey: k, Addrs: []netip.Addr{a, netip.AddrFrom16(b)}}
	}
	return out
}

// BenchmarkPlane measures a Set that finds everything in place, and a device's removal and
// return, with n others.
func BenchmarkPlane(b *testing.B) {
	if err := Probe(b.Context(), dataplane.Config{Interface: iface}); err != nil {
		if os.Getenv("CI") != "" {
			b.Fatal(err)
		}
		b.Skip(err)
	}
	for _, n := range []int{10, 10_000, 50_000} {
		s := dataplane.State{Gateway: gateway(dataplane.Key{1}), Devices: manyDevices(n)}
		refuse := 0
		p, err := Options{OpenFilter: func(context.Context, FilterConfig) (PacketFilter, error) {
			return flakyFilter{noFilter{}, &refuse}, nil
		}}.New(b.Context(), dataplane.Config{Interface: iface})
		if err != nil {
			b.Fatal(err)
		}
		if err := p.Set(b.Context(), s); err != nil {
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("Set/%d", n), func(b *testing.B) {
			for b.Loop() {
				if err := p.Set(b.Context(), s); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("Update/%d", n), func(b *testing.B) {
			d := s.Devices[n/2 : n/2+1]
			for b.Loop() {
				if err := p.Update(b.Context(), dataplane.Change{RemoveDevices: d}); err != nil {
					b.Fatal(err)
				}
				if err := p.Update(b.Context(), dataplane.Change{PutDevices: d}); err != nil {
					b.Fatal(err)
				}
			}
		})
		// A revocation whose first try meets a transient error, and is told again as the same
		// change, against one without.
		b.Run(fmt.Sprintf("Retry/%d", n), func(b *testing.B) {
			d := s.Devices[n/2 : n/2+1]
			var took [2]time.Duration
			for b.Loop() {
				for errs := range took {
					refuse = errs
					begin := time.Now()
					err := p.Update(b.Context(), dataplane.Change{RemoveDevices: d})
					if (err != nil) != (errs == 1) {
						b.Fatalf("with %d errors: %v", errs, err)
					}
					if err != nil {
						err = p.Update(b.Context(), dataplane.Change{RemoveDevices: d})
					}
					took[errs] += time.Since(begin)
					if err != nil {
						b.Fatal(err)
					}
					if err := p.Update(b.Context(), dataplane.Change{PutDevices: d}); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(took[0].Microseconds())/1000/float64(b.N), "ms/revocation")
			b.ReportMetric(float64(took[1].Microseconds())/1000/float64(b.N), "ms/retried")
			b.ReportMetric(float64(took[1])/float64(took[0]), "ratio")
		})
		b.Run(fmt.Sprintf("Stats/%d", n), func(b *testing.B) {
			for b.Loop() {
				if _, err := p.Stats(b.Context(), s.Devices[0].PublicKey); err != nil {
					b.Fatal(err)
				}
			}
		})
		if err := p.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

type noFilter struct{}

func (noFilter) Set(context.Context, dataplane.State) error            { return nil }
func (noFilter) Update(context.Context, dataplane.Change) error        { return nil }
func (noFilter) Told() <-chan struct{}                                 { return closedChannel }
func (noFilter) Permits(context.Context, dataplane.Flow) (bool, error) { return true, nil }
func (noFilter) Complaints() []dataplane.Complaint                     { return nil }
func (noFilter) Detail() string                                        { return "" }
func (noFilter) Close() error                                          { return nil }
