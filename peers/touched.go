package peers

import (
	"slices"
	"sort"
	"sync"
)

// Touched says what changed between two views. A device is listed when it or its session
// was added, changed or removed, or when its owner was added, enabled, disabled or
// removed; the owner's counters and codes alone do not list it.
type Touched struct {
	Devices  []ID
	Policy   bool
	Settings bool
}

// Touched lists the ids of devices, and whether policy or settings, changed between
// the views old and v; ok is false when that is no longer known and everything must be
// looked at. Its cost depends on the number of changes alone.
func (v *View) Touched(old *View) (t Touched, ok bool) {
	if v.journal != old.journal || old.m.Index > v.m.Index {
		return Touched{}, false
	}
	devices, ok := v.journal.between(old.m.Index, v.m.Index)
	if !ok {
		return Touched{}, false
	}
	return Touched{devices, v.m.policyAt > old.m.Index, v.m.settingsAt > old.m.Index}, true
}

// journalLen is how many changes of devices are remembered: 24 bytes each.
const journalLen = 8192

// journal is the list of the last changes of devices. It is no part of the state: a
// restored state begins a new one.
type journal struct {
	mu      sync.Mutex
	forgot  uint64   // changes up to this index are not all here
	changes []change // a ring once it is full; next is where the oldest is
	next    int
}

type change struct {
	index  uint64
	device ID
}

func (j *journal) add(index uint64, devices []ID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, d := range devices {
		if len(j.changes) < journalLen {
			j.changes = append(j.changes, change{index, d})
			continue
		}
		j.forgot = j.changes[j.next].index
		j.changes[j.next] = change{index, d}
		j.next = (j.next + 1) % journalLen
	}
}

// between returns the devices that changed after index after and up to index last, each
// once, in order of their first change.
func (j *journal) between(after, last uint64) ([]ID, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if after < j.forgot {
		return nil, false
	}
	n := len(j.changes)
	at := func(i int) change { return j.changes[(j.next+i)%n] }
	from := sort.Search(n, func(i int) bool { return at(i).index > after })
	to := sort.Search(n, func(i int) bool { return at(i).index > last })
	var ids []ID
	seen := make(map[ID]bool, to-from)
	for i := from; i < to; i++ {
		if d := at(i).device; !seen[d] {
			seen[d] = true
			ids = append(ids, d)
		}
	}
	return slices.Clip(ids), true
}
