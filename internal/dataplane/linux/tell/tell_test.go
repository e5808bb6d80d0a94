package tell

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestTold cuts connections whose ends only read, on Linux: as they are, and with a firewall
// of their own, or one of the gateway, that drops what conntrack calls invalid.
func TestTold(t *testing.T) {
	for _, masquerade := range []bool{false, true} {
		for _, strictEnd := range []string{"none", "alice", "wiki", "gateway"} {
			t.Run(fmt.Sprintf("masquerade=%v,strict=%s", masquerade, strictEnd), func(t *testing.T) {
				b := newBed(t, masquerade)
				switch strictEnd {
				case "none":
				case "gateway": // it forwards, and drops in all directions
					load(t, "", strict+strings.ReplaceAll(`table inet g {
						chain f { type filter hook forward priority 0; RULES
						}
						chain o { type filter hook output priority 0; RULES
						}
					}
					`, "RULES", "ct state invalid drop"))
				default:
					load(t, strictEnd, strict)
				}
				for _, to := range []netip.Addr{wiki4, wiki6} {
					l := b.listen("wiki", to)
					ends := b.connect(l, 3, dialFrom("alice", to))
					b.wait(b.cut(b.flows(unix.IPPROTO_TCP)))
					b.nothingLeft()
					b.told(ends)
				}
			})
		}
	}
}
