package netstack

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"vpnd/internal/dataplane"
)

// readingsAge is how old counters may be: WireGuard gives those of all peers or none.
const readingsAge = time.Second

// readings are WireGuard's counters, read at most once in readingsAge.
type readings struct {
	mu    sync.Mutex
	at    time.Time
	peers map[dataplane.Key]dataplane.PeerStats
}

// Stats reads counters; they are up to a second old.
func (p *Plane) Stats(ctx context.Context, keys ...dataplane.Key) (dataplane.Stats, error) {
	s := dataplane.Stats{Plane: "netstack", Detail: p.detail(), Peers: make(map[dataplane.Key]dataplane.PeerStats)}
	p.mu.Lock()
	w, closed := p.wg, p.closed
	if w != nil {
		s.Detail += "; " + p.why
	}
	p.mu.Unlock()
	if closed {
		return s, ErrClosed
	}
	if g := p.near.Load(); g != nil && !g.Masquerade {
		s.Filters = append(s.Filters, dataplane.Complaint{What: "masquerading is off in the settings, which the netstack plane cannot do: resources are dialled from the host's own addresses; vpnctl settings set --masquerade on, or run vpnd with --plane linux"})
	}
	if w == nil {
		return s, nil
	}
	p.readings.mu.Lock()
	defer p.readings.mu.Unlock()
	if now := time.Now(); p.readings.peers == nil || now.Sub(p.readings.at) >= readingsAge {
		text, err := w.dev.IpcGet()
		if err != nil {
			return s, fmt.Errorf("netstack: read WireGuard's counters: %w", err)
		}
		if p.readings.peers, err = parseReadings(text); err != nil {
			return s, err
		}
		for k, v := range p.readings.peers {
			v.Local = w.bind.Local(v.Endpoint)
			p.readings.peers[k] = v
		}
		p.readings.at = now
	}
	if len(keys) == 0 {
		for k, v := range p.readings.peers {
			s.Peers[k] = v
		}
	}
	for _, k := range keys {
		if v, ok := p.readings.peers[k]; ok {
			s.Peers[k] = v
		}
	}
	return s, nil
}

// detail says what this plane is and what it cannot do.
func (p *Plane) detail() string {
	d := "wireguard-go on gVisor's netstack, unprivileged; flows that begin at a resource are not carried"
	switch {
	case !p.canPing.v4 && !p.canPing.v6:
		d += "; ping to resources is refused (net.ipv4.ping_group_range has none of this process's groups)"
	case !p.canPing.v4:
		d += "; ping to IPv4 resources is refused"
	case !p.canPing.v6:
		d += "; ping to IPv6 resources is refused"
	}
	return d
}

// parseReadings reads WireGuard's answer to "get". It keeps no key but the public ones.
func parseReadings(text string) (map[dataplane.Key]dataplane.PeerStats, error) {
	peers := make(map[dataplane.Key]dataplane.PeerStats)
	var key dataplane.Key
	var cur dataplane.PeerStats
	var sec int64
	sc := bufio.NewScanner(strings.NewReader(text))
	for sc.Scan() {
		name, value, _ := strings.Cut(sc.Text(), "=")
		var err error
		switch name {
		case "public_key":
			_, err = hex.Decode(key[:], []byte(value))
			cur, sec = dataplane.PeerStats{}, 0
		case "endpoint":
			cur.Endpoint, err = netip.ParseAddrPort(value)
		case "last_handshake_time_sec":
			sec, err = strconv.ParseInt(value, 10, 64)
		case "last_handshake_time_nsec":
			var nsec int64
			nsec, err = strconv.ParseInt(value, 10, 64)
			if sec != 0 || nsec != 0 {
				cur.LastHandshake = time.Unix(sec, nsec)
			}
		case "tx_bytes":
			cur.Sent, err = strconv.ParseInt(value, 10, 64)
		case "rx_bytes":
			cur.Received, err = strconv.ParseInt(value, 10, 64)
		default:
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("netstack: WireGuard's counters: unreadable %s", name)
		}
		peers[key] = cur
	}
	return peers, nil
}
