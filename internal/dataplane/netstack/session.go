package netstack

import (
	"time"

	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
)

// session is a device's live sign-in. It is immutable; a renewal makes a new one.
type session struct {
	until time.Time
	first uint32 // serial of the code that opened it: its identity
	// starts are the codes that can be the start of a chain, oldest first: each has a
	// longer gap before it than any that follow. The last is the newest code.
	starts []chainStart
	timer  *time.Timer // ends it by the monotonic clock
}

// chainStart is a code and the time between it and the code before.
type chainStart struct {
	at  time.Time
	gap time.Duration
}

// noGap stands before the first code.
const noGap = time.Duration(1<<63 - 1)

// newSession takes over s. When it renews old, what old knows of the gaps is kept:
// s.Codes leaves out codes that no longer matter, and so their gaps look longer.
func newSession(s dataplane.Session, old *session) *session {
	n := &session{until: s.Until}
	if len(s.Codes) == 0 {
		return n
	}
	n.first = s.Codes[0].Serial
	codes := s.Codes
	if old != nil && old.first == n.first && len(old.starts) > 0 {
		n.starts = append(n.starts, old.starts...)
		newest := old.newest()
		for len(codes) > 0 && !codes[0].At.After(newest) {
			codes = codes[1:]
		}
	}
	for _, c := range codes {
		if len(n.starts) == 0 {
			n.starts = append(n.starts, chainStart{c.At, noGap})
			continue
		}
		gap := c.At.Sub(n.newest())
		for k := len(n.starts); k > 0 && n.starts[k-1].gap <= gap; k-- {
			n.starts = n.starts[:k-1]
		}
		n.starts = append(n.starts, chainStart{c.At, gap})
	}
	return n
}

// newest is when the last code was given.
func (s *session) newest() time.Time {
	if len(s.starts) == 0 {
		return time.Time{}
	}
	return s.starts[len(s.starts)-1].at
}

// opening is what a flow remembers of the sign-in that it began in; zero for none.
type opening struct {
	first uint32
	at    time.Time // the newest code of that moment
}

// open is the opening of a flow that begins now; s may be nil.
func (s *session) open(now time.Time) opening {
	if s == nil || !now.Before(s.until) {
		return opening{}
	}
	return opening{first: s.first, at: s.newest()}
}

// live is what the sign-in s is worth to a flow that begins now; s may be nil.
func (s *session) live(now time.Time) rules.Session {
	if s == nil || !now.Before(s.until) {
		return rules.Session{}
	}
	return rules.Session{Until: s.until, Code: s.newest()}
}

// worth is what the sign-in s is worth to a flow that was opened in o; s may be nil.
//
// For a grant with freshness f the flow lives while no gap between codes since o, nor
// the time since the newest, has reached f. So the age of the code that the flow stands
// on is the longest of those, and one verdict with that age answers for every f.
func (s *session) worth(o opening, now time.Time) rules.Session {
	if s == nil || o.first == 0 || s.first != o.first || !now.Before(s.until) {
		return rules.Session{}
	}
	age := now.Sub(s.newest())
	for _, c := range s.starts {
		if c.at.After(o.at) {
			age = max(age, c.gap)
			break // gaps only get shorter from here
		}
	}
	return rules.Session{Until: s.until, Code: now.Add(-age)}
}

// same says whether s already is what d describes.
func (s *session) same(d dataplane.Session) bool {
	return s != nil && len(d.Codes) > 0 && s.until.Equal(d.Until) &&
		s.first == d.Codes[0].Serial && s.newest().Equal(d.Codes[len(d.Codes)-1].At)
}
