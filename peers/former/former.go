// Package former has the sentences that level 1 of the state kept in place of a refusal's
// code and parameters. They are part of that level's snapshots, so they are frozen: not one
// is for people any more, and what is refused since has none here.
package former

import (
	"regexp"
	"strconv"
	"time"
)

// placeholder is {name}, or {name, kind} with the kind quoted or time.
var placeholder = regexp.MustCompile(`\{([a-z]+)(?:, ([a-z]+))?\}`)

// Sentence is what level 1 kept of a refusal; value gives its parameters.
func Sentence(code string, value func(name string) string) string {
	return placeholder.ReplaceAllStringFunc(sentences[code], func(p string) string {
		m := placeholder.FindStringSubmatch(p)
		v := value(m[1])
		switch m[2] {
		case "quoted":
			return strconv.Quote(v)
		case "time":
			if t, err := time.Parse(time.RFC3339Nano, v); err == nil {
				return t.UTC().Format("2006-01-02 15:04:05 UTC")
			}
		}
		return v
	})
}

var sentences = map[string]string{
	"state_empty":             "the state is empty: its first command is Init",
	"time_impossible":         "the command's time is {time, time}: set the clock of the node that proposed it",
	"actor_too_long":          "the actor's name has {size} bytes: at most {most} are kept; shorten it",
	"actor_character":         "the actor's name holds the character {character}: it is one line of printable UTF-8",
	"note_no_action":          "a note needs an action",
	"note_action_too_long":    "the note's action has {size} bytes: at most {most} are kept; shorten it",
	"note_action_character":   "the note's action holds the character {character}: it is one line of printable UTF-8",
	"note_target_too_long":    "the note's target has {size} bytes: at most {most} are kept; shorten it",
	"note_target_character":   "the note's target holds the character {character}: it is one line of printable UTF-8",
	"note_detail_too_long":    "the note's detail has {size} bytes: at most {most} are kept; shorten it",
	"note_detail_character":   "the note's detail holds the character {character}: it is one line of printable UTF-8",
	"cluster_exists":          "cluster {cluster} is made already",
	"cluster_no_id":           "the settings have no cluster id",
	"cluster_no_key":          "the settings have no public key of the gateway",
	"cluster_key_too_large":   "a sealed key of the settings has {size} bytes: at most {most} are possible",
	"cluster_ca_too_large":    "the CA certificate has {size} bytes: at most {most} are possible",
	"network_count":           "the network has {count} prefixes: the network is one IPv4 prefix, one IPv6 prefix, or both with IPv4 first, such as 10.77.0.0/16,fd12:3456:789a::/64",
	"network_order":           "network {network}: the network is one IPv4 prefix, one IPv6 prefix, or both with IPv4 first, such as 10.77.0.0/16,fd12:3456:789a::/64",
	"network_small":           "network {network} has no room for devices: /{bits} or larger is needed",
	"network_prefix":          "network {network}: it is written as a prefix without bits behind its length, such as 192.0.2.0/24 or 2001:db8::/32",
	"route_prefix":            "route {route}: it is written as a prefix without bits behind its length, such as 192.0.2.0/24 or 2001:db8::/32",
	"routes_limit":            "{count} routes: at most {most} are possible; join neighbours into larger prefixes",
	"route_twice":             "route {route} stands there twice: remove one",
	"route_inside":            "route {route} lies in the tunnel's own network {network}: remove it",
	"dns_limit":               "{count} DNS servers: at most {most} are possible",
	"dns_invalid":             "DNS server {address}: it is an IPv4 or IPv6 address of one host",
	"session_length":          "session length {length}: it is from {least} to {most}",
	"endpoint_invalid":        "endpoint {endpoint, quoted}: an endpoint is HOST:PORT with a host name, an IPv4 address or an [IPv6 address], and a port from 1 to 65535",
	"url_invalid":             "URL {url, quoted}: the portal's URL is https://HOST or https://HOST:PORT, without a path or a slash at its end",
	"user_no_id":              "user {user, quoted} has no id",
	"user_name_invalid":       "user name {user, quoted}: a user name is 1 to 64 ASCII letters, digits, '.', '_', '-' and '@', begins with a letter or digit, and is no IP address",
	"user_exists":             "there is a user {user} already: choose another name",
	"user_id_exists":          "there is a user with the id {id} already",
	"user_not_found":          "there is no user with the id {id}: she may have been removed meanwhile",
	"user_disabled":           "user {user} is disabled: an administrator can enable her",
	"user_locked":             "user {user} is locked until {until, time} after too many wrong codes: wait, or have an administrator unlock her",
	"user_not_enrolled":       "user {user} has no authenticator: ask for an invitation to set one up",
	"step_invalid":            "TOTP step {step}: steps are above 0",
	"code_used":               "this code of user {user}, or a newer one, was used already: wait for the next code",
	"totp_secret_missing":     "the authenticator's secret is missing",
	"totp_secret_too_large":   "the authenticator's secret has {size} sealed bytes: at most {most} are possible",
	"device_no_id":            "device {device, quoted} has no id",
	"device_name_invalid":     "device name {device, quoted}: a device name is 1 to 32 ASCII letters, digits, '.', '_' and '-', and begins with a letter or digit",
	"device_id_exists":        "there is a device with the id {id} already",
	"device_exists":           "user {user} has a device {device} already: choose another name, or have that one removed",
	"device_not_found":        "there is no device with the id {id}: it may have been removed meanwhile",
	"device_disabled":         "device {device} is disabled: an administrator can enable it",
	"device_of_another":       "device {device} is not of the user with the id {user}",
	"devices_limit":           "user {user} has {count} devices, and no more are possible: remove one that is no longer used",
	"addresses_full":          "all {count} device addresses of the network {network} are given: remove devices that are no longer used",
	"tags_limit":              "{count} tags: a device has at most {most}",
	"tag_invalid":             `tag {tag, quoted}: a tag is "tag:" and a lower-case letter followed by lower-case letters, digits and '-', 64 bytes in all`,
	"preshared_key_missing":   "the preshared key is missing",
	"preshared_key_too_large": "the preshared key has {size} sealed bytes: at most {most} are possible",
	"key_low_order":           "this public key is a low-order point, with which nothing is secret: make a new key pair",
	"key_is_gateways":         "this public key is the gateway's own: make a new key pair",
	"key_in_use":              "this public key is a device's already: make a new key pair",
	"key_revoked":             "this public key was revoked and cannot come back: make a new key pair",
	"invitation_not_found":    "there is no such invitation: it was withdrawn or replaced; ask for a new one",
	"invitation_used":         "this invitation of user {user} was used at {at, time}: ask for a new one",
	"invitation_expired":      "this invitation of user {user} ended at {at, time}: ask for a new one",
	"invitation_incomplete":   "the invitation has no id or no token",
	"invitation_end_past":     "the invitation would end at {end, time}, which is not after now, {now, time}: choose a later end",
	"invitation_end_far":      "the invitation would end at {end, time}: choose an earlier end",
	"invitation_exists":       "there is an invitation with this id or token already",
	"browser_unnamed":         "the browser is not named: allow cookies for this page and open the link again",
	"enrolment_not_begun":     "user {user} has not been shown an authenticator's secret yet: open the invitation's link again",
	"enrolment_elsewhere":     "the enrolment of user {user} was continued in another browser: finish it there, or open the invitation's link here again",
	"policy_too_long":         "the policy has {size} bytes: at most {most} are possible; shorten it",
	"policy_character":        "the policy holds a control character at byte {at}: remove it",
	"policy_note_too_long":    "the policy's note has {size} bytes: at most {most} are kept; shorten it",
	"policy_note_character":   "the policy's note holds the character {character}: it is one line of printable UTF-8",
	"policy_changed":          "the policy was changed to version {version} by {by, quoted} meanwhile, and yours was made from version {base}: look at the new one and apply yours to it",
	"policy_confirm_length":   "{length} to confirm the policy: it is from {least} to {most}",
	"policy_waits":            "version {version} of the policy, applied by {by, quoted}, waits for a confirmation until {until, time}, and nothing else can be applied meanwhile: {by, quoted} can keep it (vpnctl policy confirm), anybody can take it back at once (vpnctl policy rollback)",
	"policy_still_waits":      "version {version} of the policy waits for its confirmation until {until, time}",
	"policy_of_another":       "version {version} of the policy was applied by {by, quoted}, who alone can confirm it until {until, time}; else version {back} comes back",
	"policy_confirmed_late":   "version {version} of the policy was to be confirmed before {until, time}, which is past: version {back} comes back; apply yours again",
	"policy_not_waiting":      "version {version} of the policy does not wait for a confirmation: it was confirmed or taken back already",
}
