package doctor

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"github.com/BurntSushi/toml"

	"vpnd/internal/dataplane/linux/filter"
)

// Places are where an installed vpnd keeps its things. The looks at them make nothing.
type Places struct {
	Config string // TOML
	Data   string
	LogDir string // without systemd
	// Journal prints the last lines of the service's log; nil: there is no journal.
	Journal func(context.Context) (string, error)

	WireGuard, Portal string // listen addresses
}

// Defaults are the package's, with what the file of --config and the environment say, as vpnd
// itself reads them. What an administrator gave its unit alone is not seen from here.
func Defaults(getenv func(string) string) Places {
	p := Places{Config: "/etc/vpnd/vpnd.toml", Data: "/var/lib/vpnd", LogDir: "/var/log/vpnd", Journal: journal, WireGuard: ":51820", Portal: ":8443"}
	set := func(to *string, v string) {
		if v != "" {
			*to = v
		}
	}
	set(&p.Config, getenv("VPND_CONFIG"))
	var c struct{ Data, WireGuard, Portal, ACME string }
	_, _ = toml.DecodeFile(p.Config, &c) // what is wrong with it vpnd says itself
	if c.ACME != "" || getenv("VPND_ACME") != "" {
		p.Portal = ":443"
	}
	set(&p.Data, c.Data)
	set(&p.WireGuard, c.WireGuard)
	set(&p.Portal, c.Portal)
	set(&p.Data, getenv("VPND_DATA"))
	set(&p.WireGuard, getenv("VPND_WIREGUARD"))
	set(&p.Portal, getenv("VPND_PORTAL"))
	return p
}

// journal asks systemd for the last lines of the unit's log.
func journal(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "journalctl", "-u", "vpnd", "-n", "20", "-o", "cat", "--no-pager", "-q").Output()
	return string(out), err
}

// Dead looks at a host whose vpnd does not answer, with err.
func Dead(ctx context.Context, p Places, err error) (out []*Finding) {
	ctx, stop := context.WithTimeout(ctx, slow)
	defer stop()
	if strings.Contains(err.Error(), "permission denied") {
		return []*Finding{find("vpnd_denied", "why", err)}
	}
	out = append(out, find("vpnd_down", "why", err))
	if last := p.lastWords(ctx); last != "" {
		out = append(out, find("vpnd_log", "text", last))
	}
	out = append(out, taken("UDP", p.WireGuard, "--wireguard")...)
	out = append(out, taken("TCP", p.Portal, "--portal")...)
	if st, statErr := os.Stat(p.Data); statErr == nil && st.IsDir() {
		out = append(out, Disk(p.Data, func(string) error { return nil })...)
	}
	out = append(out, Clock(Adjtimex)...)
	if port := portOf(p.WireGuard); port != 0 {
		out = append(out, Complaints(filter.Foreign(ctx, port, portOf(p.Portal)))...)
	}
	Sort(out)
	return out
}

// logTail is how much of a log file is read from its end, in bytes.
const logTail = 16 << 10

// lastWords is the last line of vpnd's log that says why it ended, else its last one.
func (p *Places) lastWords(ctx context.Context) string {
	var text string
	if p.Journal != nil {
		text, _ = p.Journal(ctx) // where there is no journal, there is a file
	}
	if strings.TrimSpace(text) == "" {
		text = tail(p.LogDir + "/vpnd.log")
	}
	last := ""
	for l := range strings.Lines(text) {
		l = strings.TrimSpace(l)
		switch {
		case l == "":
		case strings.HasPrefix(l, "vpnd: ") || strings.Contains(l, "vpnd ends"):
			last = l
		case last == "" || !strings.HasPrefix(last, "vpnd: ") && !strings.Contains(last, "vpnd ends"):
			last = l
		}
	}
	return last
}

func tail(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > logTail {
		_, _ = f.Seek(-logTail, io.SeekEnd) // else from its beginning
	}
	b, _ := io.ReadAll(io.LimitReader(f, logTail)) // what there is
	return string(b)
}

// portOf is an address's port; 0 where it has none, of which vpnd says something itself.
func portOf(addr string) uint16 {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return 0
	}
	return uint16(n)
}

// taken tries a port that vpnd would listen on.
func taken(protocol, addr, flag string) []*Finding {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil // vpnd says it itself
	}
	if protocol == "UDP" {
		var c net.PacketConn
		if c, err = net.ListenPacket("udp", ":"+port); err == nil {
			c.Close()
		}
	} else {
		var l net.Listener
		if l, err = net.Listen("tcp", addr); err == nil {
			l.Close()
		}
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return []*Finding{find("vpnd_port", "protocol", protocol, "port", port, "flag", flag)}
	}
	return nil
}
