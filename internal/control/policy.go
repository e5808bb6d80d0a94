package control

import (
	"context"
	"errors"
	"time"

	"vpnd/acl/language"
	"vpnd/acl/review"
	"vpnd/acl/rules"
	"vpnd/peers"
)

// maxPolicy is the most of a policy's text, in bytes.
const maxPolicy = 1 << 20

// Policy returns a version of the policy; 0 is the current one.
func (s *Service) Policy(version uint64) (*peers.PolicyVersion, error) {
	return policyVersion(s.View(), version)
}

func policyVersion(v *peers.View, version uint64) (*peers.PolicyVersion, error) {
	p := v.Policy()
	if version != 0 {
		p = v.PolicyVersion(version)
	}
	if p == nil {
		return nil, Refuse("no_policy_version", version)
	}
	return p, nil
}

// CheckPolicy parses, compiles and tests a text against the devices there are, and
// returns every fault and warning. fatal says that the text cannot become the policy.
func (s *Service) CheckPolicy(text string) (problems language.ErrorList, fatal bool, err error) {
	problems, fatal, err = s.checkText(text)
	if faults := s.localFaults(text); err == nil && len(faults) > 0 {
		problems, fatal = append(problems, faults...), true
		problems.Sort()
	}
	return problems, fatal, err
}

func (n *node) checkText(text string) (problems language.ErrorList, fatal bool, err error) {
	if len(text) > maxPolicy {
		return nil, false, tooLarge(text)
	}
	v := n.View()
	set, _ := v.Settings()
	return checkPolicy(v, set.Session, text)
}

func checkPolicy(v *peers.View, session time.Duration, text string) (problems language.ErrorList, fatal bool, err error) {
	ruleset, problems, err := compilePolicy(v, session, text, subjects(v))
	return problems, ruleset == nil, err
}

// compilePolicy compiles and tests a text, under a session length. With faults there are no
// rules. A text that is, or was, the policy is not refused for what only this version refuses.
func compilePolicy(v *peers.View, session time.Duration, text string, devices []rules.Subject) (*rules.Ruleset, language.ErrorList, error) {
	var p *language.Policy
	if acceptedBefore(v, text) {
		p = language.ParseStored([]byte(text))
	} else {
		var err error
		p, err = language.Parse([]byte(text))
		if list, ok := errors.AsType[language.ErrorList](err); ok {
			return nil, list, nil
		}
		if err != nil {
			return nil, nil, Refuse("policy_invalid", err)
		}
	}
	o, err := v.PolicyOptionsFor(p.Resources())
	if err != nil {
		return nil, nil, err
	}
	o.Session = session
	for u := range v.Users() {
		o.Users = append(o.Users, u.Name)
	}
	ruleset, list := review.Check(p, o, devices)
	return ruleset, list, nil
}

// acceptedBefore tells whether a text is that of a version of the policy: a rollback.
func acceptedBefore(v *peers.View, text string) bool {
	for p := range v.Policies() {
		if p.Text == text {
			return true
		}
	}
	return false
}

// subjects are the devices as the policy sees them.
func subjects(v *peers.View) []rules.Subject {
	_, n, _ := v.Counts()
	out := make([]rules.Subject, 0, n)
	for d := range v.Devices() {
		if sub, ok := v.Subject(d); ok {
			out = append(out, sub)
		}
	}
	return out
}

// ApplyPolicy asks to make a text the policy.
type ApplyPolicy struct {
	Text    string
	Base    uint64 // the version that it was made from
	Note    string
	Confirm time.Duration // 0: for good
}

// ApplyPolicy makes a text the policy if it has no fault and base is still the current
// version. It answers when the gateway has it in force. With faults, the version is nil.
// With confirm above 0 it is taken back after so long unless ConfirmPolicy follows. Before that
// allow is added to what resources may name on this host.
func (s *Service) ApplyPolicy(ctx context.Context, text string, base uint64, note string, confirm time.Duration, allow ...string) (*peers.PolicyVersion, language.ErrorList, []Closed, error) {
	if len(allow) > 0 {
		if problems, fatal, err := s.checkText(text); err != nil || fatal {
			return nil, problems, nil, err
		}
		if err := s.AllowLocalTargets(allow); err != nil {
			return nil, nil, nil, err
		}
	}
	if faults := s.localFaults(text); len(faults) > 0 {
		problems, _, err := s.CheckPolicy(text)
		return nil, problems, nil, err
	}
	a, err := s.ask(ctx, ApplyPolicy{Text: text, Base: base, Note: note, Confirm: confirm})
	if err != nil || a.Policy == 0 {
		return nil, a.Problems, nil, err
	}
	p, err := policyVersion(s.View(), a.Policy)
	if err != nil {
		return nil, nil, nil, err
	}
	return p, a.Problems, s.closed(ctx, a.Index), nil
}

func (q ApplyPolicy) decide(ctx context.Context, d *decision) (Answer, error) {
	problems, fatal, err := d.checkText(q.Text)
	if err != nil || fatal {
		return Answer{Problems: problems}, err
	}
	index, res, err := d.propose(ctx, policyCommand(d.View(), q))
	if err != nil {
		return Answer{}, err
	}
	return Answer{Index: index, Policy: res.Policy.Version, Problems: problems}, nil
}

// policyCommand is the command that applies a text without faults. A state that has not been
// raised yet takes the older kinds, which know no resources.
func policyCommand(v *peers.View, q ApplyPolicy) peers.Body {
	body := peers.PolicyApply{Text: q.Text, Base: q.Base, Note: q.Note, For: q.Confirm, Resources: language.ParseStored([]byte(q.Text)).Resources()}
	switch {
	case len(body.Resources) > 0 || v.Takes(body):
		return body
	case q.Confirm > 0:
		return peers.PolicyTryV1{Text: q.Text, Base: q.Base, Note: q.Note, For: q.Confirm}
	default:
		return peers.PolicyApplyV1{Text: q.Text, Base: q.Base, Note: q.Note}
	}
}
