package accept

import (
	"log/slog"
	"sync"
	"time"
)

// every is how often a flood is told.
const every = time.Minute

// notice tells the first refusal at once and those that follow once a minute, however
// many there are: how many, and of the last one whence it came and why it had to go.
type notice struct {
	name string
	log  *slog.Logger

	mu     sync.Mutex
	n      int         // refused and not told
	source string      // of the last of them; empty: it is not known
	why    string      // the last of them was
	timer  *time.Timer // nil: nothing was told within the last minute
	done   bool
}

// add counts a refusal.
func (n *notice) add(source, why string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.n, n.source, n.why = n.n+1, source, why
	if n.timer == nil && !n.done {
		n.tellLocked()
	}
}

func (n *notice) tellLocked() {
	said := []any{"what", n.name, "count", n.n}
	if n.source != "" {
		said = append(said, "source", n.source)
	}
	n.log.Warn("refused connections", append(said, "why", n.why)...)
	n.n = 0
	n.timer = time.AfterFunc(every, n.again)
}

// again tells what has come in the minute since the last line.
func (n *notice) again() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.timer = nil
	if n.n > 0 && !n.done {
		n.tellLocked()
	}
}

// stop tells no more.
func (n *notice) stop() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.done = true
	if n.timer != nil {
		n.timer.Stop()
	}
}
