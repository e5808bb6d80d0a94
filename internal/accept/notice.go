package accept

import (
	"sync"
	"time"
)

// every is how often a flood is told.
const every = time.Minute

// notice tells the first refusal at once and those that follow once a minute, however
// many there are.
type notice struct {
	name string
	logf func(format string, args ...any)

	mu    sync.Mutex
	n     int         // refused and not told
	why   string      // the last of them
	timer *time.Timer // nil: nothing was told within the last minute
	done  bool
}

// add counts a refusal.
func (n *notice) add(why string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.n, n.why = n.n+1, why
	if n.timer == nil && !n.done {
		n.tellLocked()
	}
}

func (n *notice) tellLocked() {
	if n.n == 1 {
		n.logf("%s: a connection was refused: %s", n.name, n.why)
	} else {
		n.logf("%s: %d connections were refused within a minute, the last one because: %s", n.name, n.n, n.why)
	}
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
