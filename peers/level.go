package peers

import "fmt"

// The level is the form of the state: which kinds of commands there are and what Apply
// makes of them, and how a snapshot is written. It is raised by a command, once every
// member knows the new form (docs/architecture.md): so one log means the same to all, and
// what an older member could not read is not written before. Levels are append-only.
const (
	levelFirst   = 1
	levelAnswers = 2 // Command.Base and lean answers (request.go), canonical keys, Configure, a used invitation's Browser
	newestLevel  = levelAnswers
)

// Upgrade raises the state's level. A leader proposes it when every member's vpnd knows
// that level, which with one node is at once. Raising it again changes nothing.
type Upgrade struct {
	Level uint64 `cbor:"1,keyasint,omitempty"`
}

func (c Upgrade) apply(t *tx) (Result, error) {
	if c.Level <= t.m.Level {
		return Result{}, nil
	}
	if t.m.Level < levelAnswers {
		t.leanAnswers()
	}
	t.m.Level = c.Level
	t.audit("cluster.upgrade", fmt.Sprintf("level %d", c.Level), "")
	return Result{}, nil
}

// level is the lowest at which this command may be.
func (c Command) level() uint64 {
	level := kinds[c.Body.kind()].level
	if c.Base != 0 {
		level = max(level, levelAnswers)
	}
	return level
}

// Level is the state's form: 1, or what Upgrade has raised it to.
func (v *View) Level() uint64 { return v.m.Level }

// Upgrade returns the command that raises the state to the newest level that this vpnd
// knows; ok is false where it is there.
func (v *View) Upgrade() (c Upgrade, ok bool) {
	return Upgrade{newestLevel}, v.m.Settings != nil && v.m.Level < newestLevel
}

// Takes says whether the state is at the level that this body needs. Apply refuses what
// is above it, so whoever makes a command asks first.
func (v *View) Takes(b Body) bool { return kinds[b.kind()].level <= v.m.Level }
