package peers

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"vpnd/peers/former"
)

// What a command can be refused for. Callers branch on these with errors.Is; the refusal
// itself says what it is about.
var (
	ErrNotFound     = errors.New("not found")
	ErrExists       = errors.New("exists already")
	ErrInvalid      = errors.New("invalid")
	ErrDisabled     = errors.New("disabled")
	ErrLocked       = errors.New("locked")
	ErrCodeUsed     = errors.New("code used already")
	ErrExpired      = errors.New("expired")
	ErrUsed         = errors.New("used already")
	ErrKeyTaken     = errors.New("key is known already")
	ErrFull         = errors.New("no address left")
	ErrConflict     = errors.New("changed meanwhile")
	ErrOtherBrowser = errors.New("continued in another browser")
	ErrNotEnrolled  = errors.New("no authenticator yet")
	ErrLimit        = errors.New("limit reached")
	ErrTooOld       = errors.New("made too long ago")
	ErrLevel        = errors.New("not possible before all gateways are upgraded")
)

// ErrUnknownKind means that a log or snapshot was written by a newer release. A node
// that meets it must stop: the command that it cannot read may be a revocation.
var ErrUnknownKind = errors.New("unknown kind of command")

// sentinels numbers the refusals for snapshots, from 1; append only.
var sentinels = []error{
	ErrNotFound, ErrExists, ErrInvalid, ErrDisabled, ErrLocked, ErrCodeUsed, ErrExpired,
	ErrUsed, ErrKeyTaken, ErrFull, ErrConflict, ErrOtherBrowser, ErrNotEnrolled, ErrLimit,
	ErrTooOld, ErrLevel,
}

// Refusal is why a command was refused: a code, and what it is about. Words are made of it
// at the edges, in their reader's language. The sentinel is found by errors.Is. State keeps
// it, as a repeated request must be told the same.
type Refusal struct {
	Code   string // one of Codes
	Params []Param
}

// Param is one parameter of a refusal: a text as it is, a whole number in decimal, a time
// in RFC 3339, a length of time as Go writes it.
type Param struct{ Name, Value string }

// RefusalCode is one kind of refusal.
type RefusalCode struct {
	Name   string
	Reason error // what errors.Is finds; nil where the parameter "reason" numbers it
	Params []string
}

// Codes are all that State refuses with. Names and parameters are frozen once released,
// as they are kept in snapshots.
func Codes() []RefusalCode { return slices.Clone(refusals) }

// codeFormer is what level 1 kept, which had a sentence instead of a code.
const codeFormer = "former"

var refusals = []RefusalCode{
	{codeFormer, nil, []string{"reason", "sentence"}},
	{"state_empty", ErrInvalid, nil},
	{"level_needed", ErrLevel, []string{"level", "have"}},
	{"request_reused", ErrConflict, []string{"id", "actor"}},
	{"request_too_old", ErrTooOld, []string{"base", "forgot"}},
	{"time_impossible", ErrInvalid, []string{"time"}},
	{"actor_too_long", ErrLimit, []string{"size", "most"}},
	{"actor_character", ErrInvalid, []string{"character"}},
	{"note_no_action", ErrInvalid, nil},
	{"note_action_too_long", ErrLimit, []string{"size", "most"}},
	{"note_action_character", ErrInvalid, []string{"character"}},
	{"note_target_too_long", ErrLimit, []string{"size", "most"}},
	{"note_target_character", ErrInvalid, []string{"character"}},
	{"note_detail_too_long", ErrLimit, []string{"size", "most"}},
	{"note_detail_character", ErrInvalid, []string{"character"}},
	{"cluster_exists", ErrExists, []string{"cluster"}},
	{"cluster_no_id", ErrInvalid, nil},
	{"cluster_no_key", ErrInvalid, nil},
	{"cluster_key_too_large", ErrLimit, []string{"size", "most"}},
	{"cluster_ca_too_large", ErrLimit, []string{"size", "most"}},
	{"network_count", ErrInvalid, []string{"count"}},
	{"network_order", ErrInvalid, []string{"network"}},
	{"network_small", ErrInvalid, []string{"network", "bits"}},
	{"network_prefix", ErrInvalid, []string{"network"}},
	{"route_prefix", ErrInvalid, []string{"route"}},
	{"routes_limit", ErrLimit, []string{"count", "most"}},
	{"route_twice", ErrInvalid, []string{"route"}},
	{"route_inside", ErrInvalid, []string{"route", "network"}},
	{"dns_limit", ErrLimit, []string{"count", "most"}},
	{"dns_invalid", ErrInvalid, []string{"address"}},
	{"mtu_invalid", ErrInvalid, []string{"mtu", "least", "most"}},
	{"session_length", ErrInvalid, []string{"length", "least", "most"}},
	{"endpoint_invalid", ErrInvalid, []string{"endpoint"}},
	{"url_invalid", ErrInvalid, []string{"url"}},
	{"user_no_id", ErrInvalid, []string{"user"}},
	{"user_name_invalid", ErrInvalid, []string{"user"}},
	{"user_exists", ErrExists, []string{"user"}},
	{"user_id_exists", ErrExists, []string{"id"}},
	{"user_not_found", ErrNotFound, []string{"id"}},
	{"user_disabled", ErrDisabled, []string{"user"}},
	{"user_locked", ErrLocked, []string{"user", "until"}},
	{"user_not_enrolled", ErrNotEnrolled, []string{"user"}},
	{"step_invalid", ErrInvalid, []string{"step"}},
	{"code_used", ErrCodeUsed, []string{"user"}},
	{"totp_secret_missing", ErrInvalid, nil},
	{"totp_secret_too_large", ErrLimit, []string{"size", "most"}},
	{"device_no_id", ErrInvalid, []string{"device"}},
	{"device_name_invalid", ErrInvalid, []string{"device"}},
	{"device_id_exists", ErrExists, []string{"id"}},
	{"device_exists", ErrExists, []string{"user", "device"}},
	{"device_not_found", ErrNotFound, []string{"id"}},
	{"device_disabled", ErrDisabled, []string{"device"}},
	{"device_of_another", ErrInvalid, []string{"device", "user"}},
	{"devices_limit", ErrLimit, []string{"user", "count"}},
	{"addresses_full", ErrFull, []string{"count", "network"}},
	{"tags_limit", ErrLimit, []string{"count", "most"}},
	{"tag_invalid", ErrInvalid, []string{"tag"}},
	{"preshared_key_missing", ErrInvalid, nil},
	{"preshared_key_too_large", ErrLimit, []string{"size", "most"}},
	{"key_length", ErrInvalid, []string{"size"}},
	{"key_not_base64", ErrInvalid, nil},
	{"key_not_canonical", ErrInvalid, nil},
	{"key_low_order", ErrInvalid, nil},
	{"key_unusable", ErrInvalid, []string{"key"}},
	{"key_is_gateways", ErrKeyTaken, nil},
	{"key_in_use", ErrKeyTaken, nil},
	{"key_revoked", ErrKeyTaken, nil},
	{"id_invalid", ErrInvalid, []string{"id"}},
	{"invitation_not_found", ErrNotFound, nil},
	{"invitation_used", ErrUsed, []string{"user", "at"}},
	{"invitation_expired", ErrExpired, []string{"user", "at"}},
	{"invitation_incomplete", ErrInvalid, nil},
	{"invitation_end_past", ErrInvalid, []string{"end", "now"}},
	{"invitation_end_far", ErrInvalid, []string{"end"}},
	{"invitation_exists", ErrExists, nil},
	{"browser_unnamed", ErrInvalid, nil},
	{"enrolment_not_begun", ErrNotEnrolled, []string{"user"}},
	{"enrolment_elsewhere", ErrOtherBrowser, []string{"user"}},
	{"policy_too_long", ErrLimit, []string{"size", "most"}},
	{"policy_character", ErrInvalid, []string{"at"}},
	{"policy_note_too_long", ErrLimit, []string{"size", "most"}},
	{"policy_note_character", ErrInvalid, []string{"character"}},
	{"policy_changed", ErrConflict, []string{"version", "by", "base"}},
	{"policy_confirm_length", ErrInvalid, []string{"length", "least", "most"}},
	{"policy_waits", ErrConflict, []string{"version", "by", "until"}},
	{"policy_still_waits", ErrConflict, []string{"version", "until"}},
	{"policy_of_another", ErrConflict, []string{"version", "by", "until", "back"}},
	{"policy_confirmed_late", ErrExpired, []string{"version", "until", "back"}},
	{"policy_not_waiting", ErrNotFound, []string{"version"}},
	{"vault_name_invalid", ErrInvalid, []string{"name"}},
	{"vault_value_missing", ErrInvalid, nil},
	{"vault_value_too_large", ErrLimit, []string{"size", "most"}},
	{"vault_values_limit", ErrLimit, []string{"most"}},
	{"vault_size_limit", ErrLimit, []string{"size", "most"}},
	{"vault_no_holder", ErrInvalid, nil},
	{"vault_lock_length", ErrInvalid, []string{"length", "least", "most"}},
	{"vault_locked", ErrLocked, []string{"name", "until"}},
	{"vault_locks_limit", ErrLimit, []string{"most"}},
	{"resources_limit", ErrLimit, []string{"resources", "most"}},
	{"resource_name_invalid", ErrInvalid, []string{"name"}},
	{"resources_full", ErrLimit, []string{"resources", "most", "network"}},
	{"self_tests_limit", ErrLimit, []string{"most"}},
}

// Error gives code and parameters, for logs.
func (r *Refusal) Error() string {
	var b strings.Builder
	b.WriteString(r.Code)
	for _, p := range r.Params {
		v := p.Value
		if v == "" || strings.ContainsFunc(v, func(c rune) bool { return c <= ' ' || c == '"' || c > '~' }) {
			v = strconv.Quote(v)
		}
		b.WriteString(" " + p.Name + "=" + v)
	}
	return b.String()
}

// Is implements errors.Is for the sentinels.
func (r *Refusal) Is(target error) bool {
	if r.Code == codeFormer {
		n, err := strconv.Atoi(r.value("reason"))
		return err == nil && 0 < n && n <= len(sentinels) && sentinels[n-1] == target
	}
	c := codeNamed(r.Code)
	return c != nil && c.Reason == target
}

// value is a parameter's.
func (r *Refusal) value(name string) string {
	for _, p := range r.Params {
		if p.Name == name {
			return p.Value
		}
	}
	return ""
}

func codeNamed(name string) *RefusalCode {
	if i := slices.IndexFunc(refusals, func(c RefusalCode) bool { return c.Name == name }); i >= 0 {
		return &refusals[i]
	}
	return nil
}

// refuse makes a refusal; its arguments are the code's parameters in their order.
func refuse(code string, args ...any) error {
	r := &Refusal{Code: code}
	for i, name := range codeNamed(code).Params {
		value := ""
		switch a := args[i].(type) {
		case time.Time:
			value = a.UTC().Format(time.RFC3339Nano)
		default:
			value = fmt.Sprint(a)
		}
		r.Params = append(r.Params, Param{name, value})
	}
	return r
}

// former gives a refusal as level 1 keeps it.
func (r *Refusal) former() *Refusal {
	if r.Code == codeFormer {
		return r
	}
	for i, reason := range sentinels {
		if r.Is(reason) {
			return formerRefusal(uint64(i)+1, former.Sentence(r.Code, r.value))
		}
	}
	return r
}

func formerRefusal(reason uint64, sentence string) *Refusal {
	return &Refusal{codeFormer, []Param{{"reason", strconv.FormatUint(reason, 10)}, {"sentence", sentence}}}
}

// readRefusal makes a stored refusal.
func readRefusal(code string, values []string) (*Refusal, error) {
	c := codeNamed(code)
	if c == nil || len(values) != len(c.Params) {
		return nil, fmt.Errorf("the refusal %q with %d parameters is unknown: it needs a newer vpnd", code, len(values))
	}
	r := &Refusal{Code: code}
	for i, name := range c.Params {
		r.Params = append(r.Params, Param{name, values[i]})
	}
	return r, nil
}
