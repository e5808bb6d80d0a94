package peers

import "fmt"

func (c PolicyApply) apply(t *tx) (Result, error) {
	if err := t.checkPolicy(c.Text, c.Base, c.Note); err != nil {
		return Result{}, err
	}
	p := t.addPolicy(c.Text, c.Note)
	t.audit("policy.apply", policyTarget(p), c.Note)
	return Result{Policy: p}, nil
}

func (c PolicyTry) apply(t *tx) (Result, error) {
	if c.For < minConfirm || c.For > maxConfirm {
		return Result{}, refuse(ErrInvalid, "%s to confirm the policy: it is from %s to %s", c.For, minConfirm, maxConfirm)
	}
	if err := t.checkPolicy(c.Text, c.Base, c.Note); err != nil {
		return Result{}, err
	}
	p := t.addPolicy(c.Text, c.Note)
	t.m.Pending = &Pending{Version: p.Version, Back: c.Base, Until: t.m.Time.time().Add(c.For), By: t.actor}
	detail := fmt.Sprintf("to be confirmed until %s", clock(t.m.Pending.Until))
	if c.Note != "" {
		detail = c.Note + "; " + detail
	}
	t.audit("policy.apply", policyTarget(p), detail)
	return Result{Policy: p}, nil
}

func (c PolicyConfirm) apply(t *tx) (Result, error) {
	w, err := t.pending(c.Version)
	if err != nil {
		return Result{}, err
	}
	if t.actor != w.By {
		return Result{}, refuse(ErrConflict, "version %d of the policy was applied by %q, who alone can confirm it until %s; else version %d comes back", w.Version, w.By, clock(w.Until), w.Back)
	}
	if !t.m.Time.time().Before(w.Until) {
		return Result{}, refuse(ErrExpired, "version %d of the policy was to be confirmed before %s, which is past: version %d comes back; apply yours again", w.Version, clock(w.Until), w.Back)
	}
	t.m.Pending = nil
	p := t.policy()
	t.audit("policy.confirm", policyTarget(p), "")
	return Result{Policy: p}, nil
}

func (c PolicyRevert) apply(t *tx) (Result, error) {
	w, err := t.pending(c.Version)
	if err != nil {
		return Result{}, err
	}
	if !c.Early && t.m.Time.time().Before(w.Until) {
		return Result{}, refuse(ErrConflict, "version %d of the policy waits for its confirmation until %s", w.Version, clock(w.Until))
	}
	why := "not confirmed in time"
	if c.Early {
		why = "taken back before it was confirmed"
	}
	t.m.Pending = nil
	back := get[PolicyVersion](t, tablePolicies, byID, orderKey(w.Back))
	p := t.addPolicy(back.Text, fmt.Sprintf("version %d again: version %d was %s", w.Back, w.Version, why))
	t.audit("policy.revert", policyTarget(p), fmt.Sprintf("version %d of %s was %s; version %d is in force again", w.Version, w.By, why, w.Back))
	return Result{Policy: p}, nil
}

// checkPolicy checks what is to become the policy. That nothing may be applied while a
// version waits for its confirmation came with PolicyTry: no log without one has such a
// refusal, so the older kinds mean in old logs what they meant.
func (t *tx) checkPolicy(text string, base uint64, note string) error {
	if err := checkText("the policy", text, maxPolicy); err != nil {
		return err
	}
	if err := checkLine("the policy's note", note, maxNote); err != nil {
		return err
	}
	if w := t.m.Pending; w != nil {
		return refuse(ErrConflict, "version %d of the policy, applied by %q, waits for a confirmation until %s, and nothing else can be applied meanwhile: %q can keep it (vpnctl policy confirm), anybody can take it back at once (vpnctl policy rollback)", w.Version, w.By, clock(w.Until), w.By)
	}
	if base != t.m.Policy {
		now := t.policy()
		return refuse(ErrConflict, "the policy was changed to version %d by %q meanwhile, and yours was made from version %d: look at the new one and apply yours to it", now.Version, now.By, base)
	}
	return nil
}

// pending is what waits for a confirmation, if it is this version.
func (t *tx) pending(version uint64) (*Pending, error) {
	if w := t.m.Pending; w != nil && w.Version == version {
		return w, nil
	}
	return nil, refuse(ErrNotFound, "version %d of the policy does not wait for a confirmation: it was confirmed or taken back already", version)
}

func policyTarget(p *PolicyVersion) string { return fmt.Sprintf("version %d", p.Version) }

func (t *tx) policy() *PolicyVersion {
	return get[PolicyVersion](t, tablePolicies, byID, orderKey(t.m.Policy))
}

func (t *tx) addPolicy(text, note string) *PolicyVersion {
	t.m.Policy++
	t.m.policyAt = t.index
	p := &PolicyVersion{Version: t.m.Policy, Text: text, At: t.m.Time.time(), By: t.actor, Note: note}
	t.put(tablePolicies, p)
	return p
}
