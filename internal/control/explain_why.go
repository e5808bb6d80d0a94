package control

import (
	"time"

	"vpnd/acl/rules"
)

// Why is what the catalogue makes a sentence of: which one, with what.
type Why struct {
	Code   string // "allowed", "no_grant", …: a text of its section "explain"
	Params map[string]string
}

func explained(code string, params ...string) *Why {
	w := &Why{code, map[string]string{}}
	for i := 0; i+1 < len(params); i += 2 {
		w.Params[params[i]] = params[i+1]
	}
	return w
}

// describe gives an answer its reason, with what is missing. What the policy does not
// decide comes first: disabled devices, and the sign-in page.
func (f *FlowAnswer) describe(from, to flowEnd, p rules.Packet, now time.Time, portal bool) {
	if from.device != nil {
		f.Source = from.name
	}
	if to.device != nil {
		f.Destination = to.name
	}
	f.Word = f.Reason.Word()
	for _, e := range []flowEnd{from, to} {
		if e.disabled != nil {
			f.Verdict = rules.Verdict{Reason: rules.NoGrant, Grant: -1}
			f.Word = reasonDisabled
			f.Why = e.disabled
			return
		}
	}
	if from.device != nil && portal {
		f.Verdict = rules.Verdict{Allow: true, Reason: rules.Allowed, Grant: -1}
		f.Word = f.Reason.Word()
		f.Why = explained("portal")
		return
	}
	// Whose code counts: the source's, or where that is no device, the destination's.
	who, session := f.Source, p.SrcSession
	if from.device == nil {
		who, session = f.Destination, p.DstSession
	}
	switch f.Reason {
	case rules.Allowed:
		f.Why = explained("allowed")
	case rules.NoGrant:
		f.Why = explained("no_grant", "from", f.Source, "to", f.Destination, "flow", f.Question.String())
	case rules.NoSession:
		f.Why = explained("no_session", "who", who)
		if from.device == nil && to.device == nil {
			f.Why = explained("no_device")
		}
	case rules.StaleCode:
		f.Why = explained("stale", "who", who, "age", now.Sub(session.Code).Round(time.Second).String())
	case rules.OutsideTime:
		f.Why = explained("over")
		if !f.Until.IsZero() {
			f.Why = explained("other_hour")
		}
	case rules.PeerOffline:
		f.Why = explained("peer_offline", "to", f.Destination)
	default:
		f.Why = explained("reason", "reason", f.Reason.String())
	}
}
