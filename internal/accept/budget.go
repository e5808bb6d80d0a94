package accept

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// fewest is how many descriptors a gateway needs.
const fewest = 256

// Descriptors raises the limit of this process' descriptors (RLIMIT_NOFILE) as far as it may
// and returns it.
func Descriptors() (int, error) {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return 0, fmt.Errorf("ask how many descriptors this process may have: %w", err)
	}
	if l.Cur < l.Max {
		more := unix.Rlimit{Cur: l.Max, Max: l.Max}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &more); err == nil { // else what there is must do
			l = more
		}
	}
	if l.Cur < fewest {
		return 0, fmt.Errorf("this process may have %d descriptors and needs %d: raise the limit (ulimit -n, or LimitNOFILE= in a unit)", l.Cur, fewest)
	}
	return int(min(l.Cur, 1<<20)), nil
}

// Budget is how vpnd's descriptors are shared out, so that none of these can use up what
// another, or the rest, needs: netlink, the log, snapshots, files.
type Budget struct {
	Public  int // connections of the public portal
	Tunnel  int // of the portal inside the tunnel; on the netstack plane they cost no descriptor
	Control int // of the control socket
	WhoIs   int // of the socket for protected services
	Flows   int // sockets of the netstack plane's flows
	Relay   int // connections, and as many flows of datagrams, that the linux plane's relay carries
}

// relayed is how many descriptors a relayed connection takes, two sockets and two pipes, and
// a flow of datagrams beside it.
const relayed = 7

// Share shares out as many descriptors.
func Share(limit int) Budget {
	rest := limit - min(limit/4, 256)
	b := Budget{
		Control: min(rest/16, 64),
		WhoIs:   min(rest/8, 128),
		Public:  min(rest/4, 8192),
		Tunnel:  min(rest/4, 8192),
	}
	// One plane has the portal's sockets inside the tunnel and the relay, the other has the flows'.
	b.Flows = min(rest-b.Control-b.WhoIs-b.Public, 32768)
	b.Relay = max(1, min((rest-b.Control-b.WhoIs-b.Public-b.Tunnel)/relayed, 10_240))
	return b
}

// each is the most that one source may hold: what a busy host opens, and more.
const each = 256

// Each is one source's share of all.
func Each(all int) int { return max(1, min(all/4, each)) }
