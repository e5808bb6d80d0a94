package peers

import (
	"fmt"
	"iter"
	"time"
)

// PolicyVersion is one applied policy.
type PolicyVersion struct {
	Version uint64 // 1, 2, …
	Text    string
	At      time.Time
	By      string
	Note    string
	// Resources are the names of its resources, sorted; from level 5 on.
	Resources []string
}

type wirePolicy struct {
	Version   uint64   `cbor:"1,keyasint"`
	Text      string   `cbor:"2,keyasint,omitempty"`
	At        stamp    `cbor:"3,keyasint"`
	By        string   `cbor:"4,keyasint,omitempty"`
	Note      string   `cbor:"5,keyasint,omitempty"`
	Resources []string `cbor:"6,keyasint,omitempty"`
}

// MarshalCBOR gives the canonical encoding.
func (p PolicyVersion) MarshalCBOR() ([]byte, error) {
	return encMode.Marshal(wirePolicy{p.Version, p.Text, stampOf(p.At), p.By, p.Note, p.Resources})
}

// UnmarshalCBOR reads what MarshalCBOR wrote.
func (p *PolicyVersion) UnmarshalCBOR(b []byte) error {
	w, err := unwire[wirePolicy](b)
	*p = PolicyVersion{w.Version, w.Text, w.At.time(), w.By, w.Note, w.Resources}
	return err
}

// Pending is a policy that is taken back unless it is confirmed in time.
type Pending struct {
	Version uint64    // the version in force
	Back    uint64    // the version whose text comes back
	Until   time.Time // when
	By      string    // the actor who applied it, and alone may confirm it
}

type wirePending struct {
	Version uint64 `cbor:"1,keyasint"`
	Back    uint64 `cbor:"2,keyasint"`
	Until   stamp  `cbor:"3,keyasint"`
	By      string `cbor:"4,keyasint,omitempty"`
}

// MarshalCBOR gives the canonical encoding.
func (p Pending) MarshalCBOR() ([]byte, error) {
	return encMode.Marshal(wirePending{p.Version, p.Back, stampOf(p.Until), p.By})
}

// UnmarshalCBOR reads what MarshalCBOR wrote.
func (p *Pending) UnmarshalCBOR(b []byte) error {
	w, err := unwire[wirePending](b)
	*p = Pending{w.Version, w.Back, w.Until.time(), w.By}
	return err
}

// PolicyApply makes a text, parsed and tested before it was proposed, the policy, and gives
// its resources their places. With For it is taken back unless PolicyConfirm comes from the
// same actor within that.
type PolicyApply struct {
	Text      string        `cbor:"1,keyasint,omitempty"`
	Base      uint64        `cbor:"2,keyasint,omitempty"` // the version it was made from; another current one is ErrConflict
	Note      string        `cbor:"3,keyasint,omitempty"`
	For       time.Duration `cbor:"4,keyasint,omitempty"` // 0: for good
	Resources []string      `cbor:"5,keyasint,omitempty"` // the names of the text's resources, sorted
}

func (c PolicyApply) apply(t *tx) (Result, error) {
	if c.For != 0 {
		if err := checkConfirm(c.For); err != nil {
			return Result{}, err
		}
	}
	if err := t.checkPolicy(c.Text, c.Base, c.Note); err != nil {
		return Result{}, err
	}
	if err := t.checkResources(c.Resources); err != nil {
		return Result{}, err
	}
	if c.For != 0 {
		return t.tryPolicy(c.Text, c.Base, c.Note, c.For, c.Resources), nil
	}
	p := t.addPolicy(c.Text, c.Note, c.Resources)
	t.audit("policy.apply", policyTarget(p), c.Note)
	return Result{Policy: p}, nil
}

// PolicyApplyV1 is PolicyApply of a text without resources, for good.
type PolicyApplyV1 struct {
	Text string `cbor:"1,keyasint,omitempty"`
	Base uint64 `cbor:"2,keyasint,omitempty"`
	Note string `cbor:"3,keyasint,omitempty"`
}

func (c PolicyApplyV1) apply(t *tx) (Result, error) {
	if err := t.checkPolicy(c.Text, c.Base, c.Note); err != nil {
		return Result{}, err
	}
	p := t.addPolicy(c.Text, c.Note, nil)
	t.audit("policy.apply", policyTarget(p), c.Note)
	return Result{Policy: p}, nil
}

// PolicyTryV1 is PolicyApply of a text without resources, to be confirmed.
type PolicyTryV1 struct {
	Text string        `cbor:"1,keyasint,omitempty"`
	Base uint64        `cbor:"2,keyasint,omitempty"`
	Note string        `cbor:"3,keyasint,omitempty"`
	For  time.Duration `cbor:"4,keyasint,omitempty"`
}

func (c PolicyTryV1) apply(t *tx) (Result, error) {
	if err := checkConfirm(c.For); err != nil {
		return Result{}, err
	}
	if err := t.checkPolicy(c.Text, c.Base, c.Note); err != nil {
		return Result{}, err
	}
	return t.tryPolicy(c.Text, c.Base, c.Note, c.For, nil), nil
}

func checkConfirm(d time.Duration) error {
	if d < minConfirm || d > maxConfirm {
		return refuse("policy_confirm_length", d, minConfirm, maxConfirm)
	}
	return nil
}

// tryPolicy puts a text in force until it is confirmed or taken back.
func (t *tx) tryPolicy(text string, base uint64, note string, d time.Duration, resources []string) Result {
	p := t.addPolicy(text, note, resources)
	t.m.Pending = &Pending{Version: p.Version, Back: base, Until: t.m.Time.time().Add(d), By: t.actor}
	detail := fmt.Sprintf("to be confirmed until %s", clock(t.m.Pending.Until))
	if note != "" {
		detail = note + "; " + detail
	}
	t.audit("policy.apply", policyTarget(p), detail)
	return Result{Policy: p}
}

// PolicyConfirm keeps the version that waits for it. It is for the actor who applied it,
// and in time: at the deadline, by the command's At, it is ErrExpired.
type PolicyConfirm struct {
	Version uint64 `cbor:"1,keyasint,omitempty"`
}

func (c PolicyConfirm) apply(t *tx) (Result, error) {
	w, err := t.pending(c.Version)
	if err != nil {
		return Result{}, err
	}
	if t.actor != w.By {
		return Result{}, refuse("policy_of_another", w.Version, w.By, w.Until, w.Back)
	}
	if !t.m.Time.time().Before(w.Until) {
		return Result{}, refuse("policy_confirmed_late", w.Version, w.Until, w.Back)
	}
	t.m.Pending = nil
	p := t.policy()
	t.audit("policy.confirm", policyTarget(p), "")
	return Result{Policy: p}, nil
}

// PolicyRevert takes the version back that waits for a confirmation: what was in force
// before it becomes a new version. Unless Early it is refused before the deadline.
type PolicyRevert struct {
	Version uint64 `cbor:"1,keyasint,omitempty"`
	Early   bool   `cbor:"2,keyasint,omitempty"`
}

func (c PolicyRevert) apply(t *tx) (Result, error) {
	w, err := t.pending(c.Version)
	if err != nil {
		return Result{}, err
	}
	if !c.Early && t.m.Time.time().Before(w.Until) {
		return Result{}, refuse("policy_still_waits", w.Version, w.Until)
	}
	why := "not confirmed in time"
	if c.Early {
		why = "taken back before it was confirmed"
	}
	t.m.Pending = nil
	back := get[PolicyVersion](t, tablePolicies, byID, orderKey(w.Back))
	// Its places were kept for 30 days, and a version waits for a day at most.
	p := t.addPolicy(back.Text, fmt.Sprintf("version %d again: version %d was %s", w.Back, w.Version, why), back.Resources)
	t.audit("policy.revert", policyTarget(p), fmt.Sprintf("version %d of %s was %s; version %d is in force again", w.Version, w.By, why, w.Back))
	return Result{Policy: p}, nil
}

// checkPolicy checks what is to become the policy. That nothing may be applied while a
// version waits for its confirmation came with PolicyTryV1: no log without one has such a
// refusal, so the older kinds mean in old logs what they meant.
func (t *tx) checkPolicy(text string, base uint64, note string) error {
	if err := checkText("policy", text, maxPolicy); err != nil {
		return err
	}
	if err := checkLine("policy_note", note, maxNote); err != nil {
		return err
	}
	if w := t.m.Pending; w != nil {
		return refuse("policy_waits", w.Version, w.By, w.Until)
	}
	if base != t.m.Policy {
		now := t.policy()
		return refuse("policy_changed", now.Version, now.By, base)
	}
	return nil
}

// pending is what waits for a confirmation, if it is this version.
func (t *tx) pending(version uint64) (*Pending, error) {
	if w := t.m.Pending; w != nil && w.Version == version {
		return w, nil
	}
	return nil, refuse("policy_not_waiting", version)
}

func policyTarget(p *PolicyVersion) string { return fmt.Sprintf("version %d", p.Version) }

func (t *tx) policy() *PolicyVersion {
	return get[PolicyVersion](t, tablePolicies, byID, orderKey(t.m.Policy))
}

func (t *tx) addPolicy(text, note string, resources []string) *PolicyVersion {
	t.m.Policy++
	t.m.policyAt = t.index
	p := &PolicyVersion{Version: t.m.Policy, Text: text, At: t.m.Time.time(), By: t.actor, Note: note, Resources: resources}
	t.put(tablePolicies, p)
	t.publish(resources)
	return p
}

// Policy returns the current policy; nil before Init.
func (v *View) Policy() *PolicyVersion { return v.PolicyVersion(v.m.Policy) }

// PolicyVersion returns version n of the policy.
func (v *View) PolicyVersion(n uint64) *PolicyVersion {
	return get[PolicyVersion](v, tablePolicies, byID, orderKey(n))
}

// Pending returns what waits for a confirmation, or nil.
func (v *View) Pending() *Pending { return v.m.Pending }

// Policies yields all versions of the policy, newest first.
func (v *View) Policies() iter.Seq[*PolicyVersion] {
	return func(yield func(*PolicyVersion) bool) {
		it, err := v.txn.GetReverse(tablePolicies, byID)
		if err != nil {
			v.fail(err)
		}
		for o := it.Next(); o != nil; o = it.Next() {
			if !yield(o.(*PolicyVersion)) {
				return
			}
		}
	}
}
