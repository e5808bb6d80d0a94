package control

import (
	"regexp"
	"time"

	"vpnd/peers"
)

// TODO: the catalogue (internal/words) takes these over, in the form that they have: a file
// of texts by code, with {name} or {name, kind} for a parameter. This file goes then.

var placeholder = regexp.MustCompile(`\{([a-z]+)(?:, ([a-z]+))?\}`)

// refusalText makes a sentence of what State refused.
func refusalText(r *peers.Refusal) string {
	text, ok := refusalTexts[r.Code]
	if !ok {
		return "This was refused: " + r.Error() + "."
	}
	return placeholder.ReplaceAllStringFunc(text, func(p string) string {
		m := placeholder.FindStringSubmatch(p)
		for _, param := range r.Params {
			if param.Name != m[1] {
				continue
			}
			if m[2] == "time" {
				if t, err := time.Parse(time.RFC3339Nano, param.Value); err == nil {
					return t.UTC().Format("2006-01-02 15:04:05 UTC")
				}
			}
			return param.Value
		}
		return p
	})
}

var refusalTexts = map[string]string{
	"former":                  "{sentence}",
	"state_empty":             "The state is empty: its first command is Init.",
	"level_needed":            "This needs level {level} of the state, which is at level {have}. It can be done when every gateway runs a vpnd that knows that level.",
	"request_reused":          `The request {id} was another one of "{actor}". Make this one anew.`,
	"request_too_old":         "This request is too old to tell whether it was carried out. Look whether it was, and make it again if not.",
	"time_impossible":         "The command's time is {time, time}: set the clock of the node that proposed it.",
	"actor_too_long":          "The actor's name has {size, number} bytes: at most {most, number} are kept; shorten it.",
	"actor_character":         "The actor's name holds the character {character}: it is one line of printable UTF-8.",
	"note_no_action":          "A note needs an action.",
	"note_action_too_long":    "The note's action has {size, number} bytes: at most {most, number} are kept; shorten it.",
	"note_action_character":   "The note's action holds the character {character}: it is one line of printable UTF-8.",
	"note_target_too_long":    "The note's target has {size, number} bytes: at most {most, number} are kept; shorten it.",
	"note_target_character":   "The note's target holds the character {character}: it is one line of printable UTF-8.",
	"note_detail_too_long":    "The note's detail has {size, number} bytes: at most {most, number} are kept; shorten it.",
	"note_detail_character":   "The note's detail holds the character {character}: it is one line of printable UTF-8.",
	"cluster_exists":          "Cluster {cluster} is made already.",
	"cluster_no_id":           "The settings have no cluster id.",
	"cluster_no_key":          "The settings have no public key of the gateway.",
	"cluster_key_too_large":   "A sealed key of the settings has {size, number} bytes: at most {most, number} are possible.",
	"cluster_ca_too_large":    "The CA certificate has {size, number} bytes: at most {most, number} are possible.",
	"network_count":           "The network has {count, number} prefixes: the network is one IPv4 prefix, one IPv6 prefix, or both with IPv4 first, such as 10.77.0.0/16,fd12:3456:789a::/64.",
	"network_order":           "Network {network}: the network is one IPv4 prefix, one IPv6 prefix, or both with IPv4 first, such as 10.77.0.0/16,fd12:3456:789a::/64.",
	"network_small":           "Network {network} has no room for devices: /{bits} or larger is needed.",
	"network_prefix":          "Network {network}: it is written as a prefix without bits behind its length, such as 192.0.2.0/24 or 2001:db8::/32.",
	"route_prefix":            "Route {route}: it is written as a prefix without bits behind its length, such as 192.0.2.0/24 or 2001:db8::/32.",
	"routes_limit":            "{count, number} routes: at most {most, number} are possible; join neighbours into larger prefixes.",
	"route_twice":             "Route {route} stands there twice: remove one.",
	"route_inside":            "Route {route} lies in the tunnel's own network {network}: remove it.",
	"dns_limit":               "{count, number} DNS servers: at most {most, number} are possible.",
	"dns_invalid":             "DNS server {address}: it is an IPv4 or IPv6 address of one host.",
	"mtu_invalid":             "An MTU of {mtu} is not possible: it is auto, which leaves it to the gateway's line, or from {least, number} to {most, number}.",
	"session_length":          "Session length {length, duration}: it is from {least, duration} to {most, duration}.",
	"endpoint_invalid":        `Endpoint "{endpoint}": an endpoint is HOST:PORT with a host name, an IPv4 address or an [IPv6 address], and a port from 1 to 65535.`,
	"url_invalid":             `URL "{url}": the portal's URL is https://HOST or https://HOST:PORT, without a path or a slash at its end.`,
	"user_no_id":              `User "{user}" has no id.`,
	"user_name_invalid":       `User name "{user}": a user name is 1 to 64 ASCII letters, digits, '.', '_', '-' and '@', begins with a letter or digit, and is no IP address.`,
	"user_exists":             "There is a user {user} already: choose another name.",
	"user_id_exists":          "There is a user with the id {id} already.",
	"user_not_found":          "There is no user with the id {id}: she may have been removed meanwhile.",
	"user_disabled":           "User {user} is disabled: an administrator can enable her.",
	"user_locked":             "User {user} is locked until {until, time} after too many wrong codes: wait, or have an administrator unlock her.",
	"user_not_enrolled":       "User {user} has no authenticator: ask for an invitation to set one up.",
	"step_invalid":            "TOTP step {step}: steps are above 0.",
	"code_used":               "This code of user {user}, or a newer one, was used already: wait for the next code.",
	"totp_secret_missing":     "The authenticator's secret is missing.",
	"totp_secret_too_large":   "The authenticator's secret has {size, number} sealed bytes: at most {most, number} are possible.",
	"device_no_id":            `Device "{device}" has no id.`,
	"device_name_invalid":     `Device name "{device}": a device name is 1 to 32 ASCII letters, digits, '.', '_' and '-', and begins with a letter or digit.`,
	"device_id_exists":        "There is a device with the id {id} already.",
	"device_exists":           "User {user} has a device {device} already: choose another name, or have that one removed.",
	"device_not_found":        "There is no device with the id {id}: it may have been removed meanwhile.",
	"device_disabled":         "Device {device} is disabled: an administrator can enable it.",
	"device_of_another":       "Device {device} is not of the user with the id {user}.",
	"devices_limit":           "User {user} has {count, number} devices, and no more are possible: remove one that is no longer used.",
	"addresses_full":          "All {count, number} device addresses of the network {network} are given: remove devices that are no longer used.",
	"tags_limit":              "{count, number} tags: a device has at most {most, number}.",
	"tag_invalid":             `Tag "{tag}": a tag is "tag:" and a lower-case letter followed by lower-case letters, digits and '-', 64 bytes in all.`,
	"preshared_key_missing":   "The preshared key is missing.",
	"preshared_key_too_large": "The preshared key has {size, number} sealed bytes: at most {most, number} are possible.",
	"key_length":              "A public key of {size, number} characters is none of WireGuard's: that is the 44 characters which `wg pubkey` prints.",
	"key_not_base64":          "The public key is not written as WireGuard writes it: the 44 characters that `wg pubkey` prints.",
	"key_not_canonical":       "This public key is not spelled as WireGuard spells it: X25519 takes it for another one. Use what `wg pubkey` prints.",
	"key_low_order":           "This public key is a low-order point, with which nothing is secret: make a new key pair.",
	"key_unusable":            "The public key {key} cannot be used. Make a new key pair with `wg genkey`.",
	"key_is_gateways":         "This public key is the gateway's own: make a new key pair.",
	"key_in_use":              "This public key is a device's already: make a new key pair.",
	"key_revoked":             "This public key was revoked and cannot come back: make a new key pair.",
	"id_invalid":              "{id} is no id: an id is 32 lower-case hex digits.",
	"invitation_not_found":    "There is no such invitation: it was withdrawn or replaced; ask for a new one.",
	"invitation_used":         "This invitation of user {user} was used at {at, time}: ask for a new one.",
	"invitation_expired":      "This invitation of user {user} ended at {at, time}: ask for a new one.",
	"invitation_incomplete":   "The invitation has no id or no token.",
	"invitation_end_past":     "The invitation would end at {end, time}, which is not after now, {now, time}: choose a later end.",
	"invitation_end_far":      "The invitation would end at {end, time}: choose an earlier end.",
	"invitation_exists":       "There is an invitation with this id or token already.",
	"browser_unnamed":         "The browser is not named: allow cookies for this page and open the link again.",
	"enrolment_not_begun":     "User {user} has not been shown an authenticator's secret yet: open the invitation's link again.",
	"enrolment_elsewhere":     "The enrolment of user {user} was continued in another browser: finish it there, or open the invitation's link here again.",
	"policy_too_long":         "The policy has {size, number} bytes: at most {most, number} are possible; shorten it.",
	"policy_character":        "The policy holds a control character at byte {at}: remove it.",
	"policy_note_too_long":    "The policy's note has {size, number} bytes: at most {most, number} are kept; shorten it.",
	"policy_note_character":   "The policy's note holds the character {character}: it is one line of printable UTF-8.",
	"policy_changed":          `The policy was changed to version {version} by "{by}" meanwhile, and yours was made from version {base}: look at the new one and apply yours to it.`,
	"policy_confirm_length":   "{length, duration} to confirm the policy: it is from {least, duration} to {most, duration}.",
	"policy_waits":            `Version {version} of the policy, applied by "{by}", waits for a confirmation until {until, time}, and nothing else can be applied meanwhile: "{by}" can keep it (vpnctl policy confirm), anybody can take it back at once (vpnctl policy rollback).`,
	"policy_still_waits":      "Version {version} of the policy waits for its confirmation until {until, time}.",
	"policy_of_another":       `Version {version} of the policy was applied by "{by}", who alone can confirm it until {until, time}; else version {back} comes back.`,
	"policy_confirmed_late":   "Version {version} of the policy was to be confirmed before {until, time}, which is past: version {back} comes back; apply yours again.",
	"policy_not_waiting":      "Version {version} of the policy does not wait for a confirmation: it was confirmed or taken back already.",
}
