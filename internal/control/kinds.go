package control

import (
	"slices"

	"vpnd/peers"
)

// Kinds of refusals: stable words that programs may branch on, and what an edge's status
// depends on. Several codes are of one kind.
const (
	KindNotFound          = "not_found"
	KindExists            = "exists"
	KindInvalid           = "invalid"
	KindDisabled          = "disabled"
	KindLocked            = "locked"       // RetryAfter says how long
	KindCodeInvalid       = "code_invalid" // counted, unless it was not six digits
	KindCodeUsed          = "code_used"    // RetryAfter says when the next one comes
	KindNotEnrolled       = "not_enrolled"
	KindInvitationUnknown = "invitation_unknown"
	KindInvitationExpired = "invitation_expired"
	KindInvitationUsed    = "invitation_used"
	KindOtherBrowser      = "other_browser"
	KindKeyTaken          = "key_taken"
	KindFull              = "full"
	KindConflict          = "conflict"
	KindLimit             = "limit"     // of how many, or how often
	KindTooLarge          = "too_large" // more than one request may have
	KindClockBehind       = "clock_behind"
	KindNoLeader          = "no_leader"
	KindUnavailable       = "unavailable"
	KindCanceled          = "canceled" // by its caller
	KindDeadline          = "deadline" // of its caller, who waits no longer
	KindDenied            = "denied"
	KindInternal          = "internal"
	KindExpired           = "expired"
	KindTooOld            = "too_old" // to tell whether it was carried out
	KindUsed              = "used"
	KindPinned            = "pinned" // by a flag, the environment or the file of this gateway
)

// RefusalCode is one sort of refusal, for which the catalogue has one sentence.
type RefusalCode struct {
	Name   string
	Kind   string
	Params []string
}

// Codes are all that a use case may refuse with: State's and its own, and what the gRPC edge
// says of a request that it cannot read.
func Codes() []RefusalCode { return slices.Clone(codes) }

var codes = append(ofState(), []RefusalCode{
	{"address_of_nobody", KindNotFound, []string{"address"}},
	{"owner_gone", KindNotFound, nil},
	{"account_gone", KindNotFound, nil},
	{"address_not_enabled", KindNotFound, []string{"address"}},
	{"no_user", KindNotFound, []string{"user"}},
	{"no_device", KindNotFound, []string{"device"}},
	{"no_group", KindNotFound, []string{"group"}},
	{"no_resource", KindNotFound, []string{"resource"}},
	{"local_target_refused", KindInvalid, []string{"why"}},
	{"no_policy_version", KindNotFound, []string{"version"}},
	{"no_policy_waits", KindNotFound, nil},
	{"no_flow_end", KindNotFound, []string{"name"}},
	{"user_without_device", KindNotFound, []string{"user"}},
	{"enrolment_without_device", KindNotFound, nil},

	{"code_shape", KindCodeInvalid, nil},
	{"code_wrong", KindCodeInvalid, nil},
	{"code_wrong_locked", KindCodeInvalid, []string{"user", "until"}},
	{"code_spent", KindCodeUsed, []string{"wait"}},
	{"code_ahead", KindCodeUsed, []string{"from"}},
	{"clock_behind", KindClockBehind, []string{"clock", "records"}},
	{"checks_waiting", KindUnavailable, nil},
	{"device_changed_hands", KindUnavailable, nil},

	{"invitation_unknown", KindInvitationUnknown, nil},
	{"invitation_of_nobody", KindInvitationUnknown, nil},
	{"invitation_ended", KindInvitationExpired, []string{"end"}},
	{"invitation_spent", KindInvitationUsed, nil},
	{"invitation_length", KindInvalid, []string{"length", "least", "most"}},
	{"browser_no_cookie", KindInvalid, nil},
	{"browser_changed", KindOtherBrowser, nil},
	{"browsers_limit", KindLimit, nil},
	{"enrolment_no_secret", KindNotEnrolled, nil},
	{"key_known", KindKeyTaken, nil},

	{"device_form", KindInvalid, []string{"device"}},
	{"policy_invalid", KindInvalid, []string{"problem"}},
	{"policy_too_large", KindTooLarge, []string{"size", "most"}},
	{"policy_needs_session", KindInvalid, []string{"length", "line", "problem"}},
	{"question_invalid", KindInvalid, []string{"problem"}},
	{"flow_of_two_families", KindInvalid, []string{"from", "to", "from_addresses", "to_addresses"}},
	{"flow_of_many_devices", KindInvalid, []string{"user", "count", "devices"}},
	{"settings_pinned", KindPinned, []string{"settings"}},

	{"request_of_another", KindConflict, nil},
	{"repeat_device_changed", KindConflict, nil},
	{"repeat_user_gone", KindConflict, nil},
	{"not_upgraded", KindUnavailable, nil},
	{"no_leader", KindNoLeader, nil},
	{"leader_lost", KindNoLeader, nil},
	{"canceled", KindCanceled, nil},
	{"unconfirmed", KindUnavailable, nil},
	{"not_heard", KindUnavailable, nil},
	{"device_not_yet", KindUnavailable, nil},
	{"settings_not_yet", KindUnavailable, nil},
	{"time_not_yet", KindUnavailable, nil},
	{"sign_in_not_yet", KindUnavailable, nil},
	{"sign_out_not_yet", KindUnavailable, nil},
	{"internal", KindInternal, nil},

	// The gRPC edge's.
	{"denied", KindDenied, []string{"method"}},
	{"sessions_of_whom", KindInvalid, nil},
	{"address_invalid", KindInvalid, []string{"address"}},
	{"prefix_invalid", KindInvalid, []string{"prefix"}},
	{"prefix_bits", KindInvalid, []string{"prefix", "masked"}},
	{"nothing_to_change", KindInvalid, nil},
	{"audit_limit", KindTooLarge, []string{"most", "count"}},
	{"addresses_limit", KindTooLarge, []string{"most"}},
	{"duration_invalid", KindInvalid, []string{"field"}},
	{"deadline", KindDeadline, nil},
}...)

// stateKinds gives State's reasons to refuse their kinds.
var stateKinds = []struct {
	reason error
	kind   string
}{
	{peers.ErrNotFound, KindNotFound},
	{peers.ErrExists, KindExists},
	{peers.ErrInvalid, KindInvalid},
	{peers.ErrDisabled, KindDisabled},
	{peers.ErrLocked, KindLocked},
	{peers.ErrCodeUsed, KindCodeUsed},
	{peers.ErrExpired, KindExpired},
	{peers.ErrUsed, KindUsed},
	{peers.ErrKeyTaken, KindKeyTaken},
	{peers.ErrFull, KindFull},
	{peers.ErrConflict, KindConflict},
	{peers.ErrOtherBrowser, KindOtherBrowser},
	{peers.ErrNotEnrolled, KindNotEnrolled},
	{peers.ErrLimit, KindLimit},
	{peers.ErrTooOld, KindTooOld},
	{peers.ErrLevel, KindUnavailable},
}

// ofState are State's codes. A former refusal has its reason as a parameter, hence no kind
// of its own here.
func ofState() []RefusalCode {
	var out []RefusalCode
	for _, c := range peers.Codes() {
		kind := ""
		for _, k := range stateKinds {
			if c.Reason == k.reason {
				kind = k.kind
			}
		}
		out = append(out, RefusalCode{c.Name, kind, c.Params})
	}
	return out
}
