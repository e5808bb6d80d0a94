package control

import (
	"fmt"
	"time"

	"vpnd/acl/rules"
)

// describe says an answer to a person, with what is missing. What the policy does not
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
		if e.disabled != "" {
			f.Verdict = rules.Verdict{Reason: rules.NoGrant, Grant: -1}
			f.Word = reasonDisabled
			f.Message = e.disabled + " is disabled: the gateway has no such peer."
			return
		}
	}
	if from.device != nil && portal {
		f.Verdict = rules.Verdict{Allow: true, Reason: rules.Allowed, Grant: -1}
		f.Word = f.Reason.Word()
		f.Message = "This is the sign-in page, which every enabled device reaches whatever the policy says."
		return
	}
	// Whose code counts: the source's, or where that is no device, the destination's.
	who, session := f.Source, p.SrcSession
	if from.device == nil {
		who, session = f.Destination, p.DstSession
	}
	switch f.Reason {
	case rules.Allowed:
		f.Message = "It may pass."
	case rules.NoGrant:
		f.Message = fmt.Sprintf("A grant is missing: none from %s to %s covers %s.", f.Source, f.Destination, f.Question)
	case rules.NoSession:
		f.Message = fmt.Sprintf("A code is missing: %s is not signed in.", who)
		if from.device == nil && to.device == nil {
			f.Message = `Neither end is a device, so nobody can give a code: the grant needs "mfa": "off".`
		}
	case rules.StaleCode:
		f.Message = fmt.Sprintf("A fresh code is missing: the last one of %s is %s old.", who, now.Sub(session.Code).Round(time.Second))
	case rules.OutsideTime:
		f.Message = "It is granted at another time, which does not come again."
		if !f.Until.IsZero() {
			f.Message = "It is granted at another hour."
		}
	case rules.PeerOffline:
		f.Message = fmt.Sprintf("A code is missing at the other end: %s is not signed in.", f.Destination)
	default:
		f.Message = sentence(f.Reason.String())
	}
}
