package peers

import (
	"fmt"
	"regexp"
)

// The level is the form of the state: which kinds of commands there are and what Apply
// makes of them, and how a snapshot is written. It is raised by a command, once every
// member knows the new form (docs/architecture.md): so one log means the same to all, and
// what an older member could not read is not written before. Levels are append-only.
const (
	levelFirst     = 1
	levelAnswers   = 2 // Command.Base and lean answers (request.go), canonical keys, Configure, a used invitation's Browser
	levelVault     = 3 // the vault (vault.go); Upgrade says which vpnd made it
	levelSelfTest  = 4 // self-tests (selftest.go)
	levelResources = 5 // the places of the policy's resources (place.go); PolicyApply names them
	newestLevel    = levelResources + newer
)

// levelNamed is the first level whose Upgrade says which vpnd made it.
const levelNamed = 3

// Upgrade raises the state's level. A leader proposes it when every member's vpnd knows
// that level, which with one node is at once. Raising it again changes nothing.
type Upgrade struct {
	Level uint64 `cbor:"1,keyasint,omitempty"`
	Vpnd  string `cbor:"2,keyasint,omitempty"` // the version of the vpnd that made it; from level 3 on
}

// TooNew is the error of a log or a snapshot of a level that this vpnd does not know. It
// is an ErrUnknownKind, too.
type TooNew struct {
	Level uint64
	Vpnd  string // which vpnd raised the state to it; empty if that is not known
}

func (e *TooNew) Error() string {
	by := "needs a newer vpnd, such as the one that ran here last"
	if e.Vpnd != "" {
		by = fmt.Sprintf("needs vpnd %s or a newer one", e.Vpnd)
	}
	return fmt.Sprintf("the state is of level %d and %s; this vpnd knows the levels up to %d: install the other one again, nothing is lost", e.Level, by, newestLevel)
}

// Is makes it an ErrUnknownKind.
func (e *TooNew) Is(target error) bool { return target == ErrUnknownKind }

// refuseTooNew reads the level from an Upgrade, which may have fields of the future.
func refuseTooNew(body []byte) error {
	var up struct {
		Level uint64 `cbor:"1,keyasint"`
		Vpnd  string `cbor:"2,keyasint"`
	}
	if err := lenient.Unmarshal(body, &up); err != nil {
		return err
	}
	if up.Level > newestLevel {
		return &TooNew{up.Level, versionOrNone(up.Vpnd)}
	}
	return nil
}

// versions are what goes to a terminal as it is.
var versions = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.+~_-]{0,63}$`)

func versionOrNone(s string) string {
	if versions.MatchString(s) {
		return s
	}
	return ""
}

func (c Upgrade) apply(t *tx) (Result, error) {
	if c.Level <= t.m.Level {
		return Result{}, nil
	}
	if t.m.Level < levelAnswers {
		t.leanAnswers()
	}
	t.m.Level = c.Level
	if c.Level >= levelNamed {
		t.m.Vpnd = versionOrNone(c.Vpnd)
	}
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
// knows; ok is false where it is there. vpnd is this one's version.
func (v *View) Upgrade(vpnd string) (c Upgrade, ok bool) {
	c.Level = newestLevel
	if c.Level >= levelNamed {
		c.Vpnd = versionOrNone(vpnd)
	}
	return c, v.m.Settings != nil && v.m.Level < newestLevel
}

// Takes says whether the state is at the level that this body needs. Apply refuses what
// is above it, so whoever makes a command asks first.
func (v *View) Takes(b Body) bool { return kinds[b.kind()].level <= v.m.Level }
