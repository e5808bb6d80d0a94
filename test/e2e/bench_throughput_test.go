package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"time"
)

// manyGrants are n grants of groups of ten people each, half of them to ports of the very
// host that iperf3 talks to, so that its packets meet them all.
func manyGrants(n, people int) (grants []string) {
	for i := range n {
		var src []string
		for k := range 10 {
			src = append(src, fmt.Sprintf(`"u%d"`, (i*10+k)%people))
		}
		dst := lan4
		if i%2 == 1 {
			dst = fmt.Sprintf("198.51.100.%d", 11+i%240)
		}
		grants = append(grants, fmt.Sprintf(`{"src": [%s], "dst": ["%s"], "ip": ["tcp:%d", "udp:%d-%d"]}`,
			strings.Join(src, ", "), dst, 10000+i, 20000+10*i, 20005+10*i))
	}
	return grants
}

// throughput measures the tunnel of one person who is signed in beside everybody else, up
// and down, in bits a second. What of it the packet filter costs, test/scale takes apart.
func (b *bed) throughput(runs, seconds int) (rates [2][]float64) {
	b.t.Helper()
	v := b.vm
	p, err := v.enrol(b.t.Context())
	if err == nil {
		err = v.wear(p)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	if err := v.signIn(p); err != nil {
		b.t.Fatal(err)
	}
	server := b.lan.start(nil, "iperf3", "-s", "-p", "5201", "--forceflush")
	eventually(b.t, 10*time.Second, "iperf3 serves", func() error {
		if !strings.Contains(server.log.String(), "listening") {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	run := func(direction int) float64 {
		b.t.Helper()
		args := []string{"iperf3", "-c", lan4, "-B", p.addr.String(), "-t", fmt.Sprint(seconds), "-O", "1", "-J"}
		if direction == 1 {
			args = append(args, "-R")
		}
		var doc struct {
			End struct {
				Received struct {
					Rate float64 `json:"bits_per_second"`
				} `json:"sum_received"`
			}
		}
		// The server may not be done with the run before.
		eventually(b.t, 30*time.Second, "iperf3 measures", func() error {
			out, err := v.host.try(args...)
			if err == nil {
				err = json.Unmarshal([]byte(out), &doc)
			}
			if err == nil && doc.End.Received.Rate <= 0 {
				err = fmt.Errorf("nothing was received: %s", tail(out, 1000))
			}
			return err
		})
		return doc.End.Received.Rate
	}
	for range runs {
		for direction := range 2 {
			rates[direction] = append(rates[direction], run(direction))
		}
	}
	server.stop(b.t, syscall.SIGTERM)
	return rates
}
