package api

import (
	"encoding/base64"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"vpnd/acl/language"
	"vpnd/internal/control"
	"vpnd/internal/dataplane"
	"vpnd/peers"
	vpnv1 "vpnd/proto/vpn/v1"
)

// timestamp leaves a zero time absent.
func timestamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// duration reads an optional, positive duration: 0 if it is absent.
func duration(d *durationpb.Duration, field string) (time.Duration, error) {
	if d == nil {
		return 0, nil
	}
	if err := d.CheckValid(); err != nil || d.AsDuration() <= 0 {
		return 0, control.Refuse("duration_invalid", field)
	}
	return d.AsDuration(), nil
}

func texts[T fmt.Stringer](list []T) []string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = v.String()
	}
	return out
}

func protoKey(k peers.Key) string { return base64.StdEncoding.EncodeToString(k[:]) }

func protoUser(v *peers.View, u *peers.User, now time.Time) *vpnv1.User {
	out := &vpnv1.User{
		Name: u.Name, Disabled: u.Disabled, Enrolled: len(u.TOTP) != 0,
		CreatedAt: timestamp(u.Created), Failures: int32(u.Failures),
	}
	if now.Before(u.Locked) {
		out.LockedUntil = timestamp(u.Locked)
	}
	for d := range v.DevicesOf(u.ID) {
		out.Devices = append(out.Devices, d.Name)
		if control.LiveSession(v, d.ID, now) != nil {
			out.Sessions++
		}
	}
	for inv := range v.InvitationsOf(u.ID) {
		if inv.Used.IsZero() && now.Before(inv.Expires) {
			out.InvitedUntil = timestamp(inv.Expires)
		}
	}
	return out
}

func (e *Edge) protoInvitation(i control.Invite) *vpnv1.Invitation {
	return &vpnv1.Invitation{
		User: i.User, Link: i.Link, ExpiresAt: timestamp(i.Expires), CaFingerprint: e.s.CAFingerprint(),
	}
}

func protoDevice(v *peers.View, d *peers.Device, set peers.Settings, st dataplane.Stats, now time.Time) *vpnv1.Device {
	out := &vpnv1.Device{
		PublicKey: protoKey(d.PublicKey), Addresses: texts(d.Addrs), Tags: d.Tags,
		Disabled: d.Disabled, CreatedAt: timestamp(d.Created), OutdatedConfig: control.Outdated(d, set),
	}
	if u := v.User(d.User); u != nil {
		out.Name = u.Name + "/" + d.Name
		out.Disabled = out.Disabled || u.Disabled
	}
	if ss := control.LiveSession(v, d.ID, now); ss != nil {
		out.SessionExpiresAt = timestamp(ss.Until)
	}
	if p, ok := st.Peers[dataplane.Key(d.PublicKey)]; ok {
		if p.Endpoint.IsValid() {
			out.Endpoint = p.Endpoint.String()
		}
		out.LastHandshakeAt = timestamp(p.LastHandshake)
		out.ReceivedBytes, out.SentBytes = p.Received, p.Sent
	}
	return out
}

func protoSession(v *peers.View, ss *peers.Session) *vpnv1.Session {
	out := &vpnv1.Session{
		StartedAt: timestamp(ss.Started), CodeAt: timestamp(control.CodeAt(ss)), ExpiresAt: timestamp(ss.Until),
	}
	d, u := v.Device(ss.Device), v.User(ss.User)
	if d != nil && u != nil {
		out.Device, out.Addresses = u.Name+"/"+d.Name, texts(d.Addrs)
	}
	return out
}

func protoPolicy(p *peers.PolicyVersion, text bool) *vpnv1.Policy {
	out := &vpnv1.Policy{Version: p.Version, AppliedAt: timestamp(p.At), AppliedBy: p.By, Note: p.Note}
	if text {
		out.Text = p.Text
	}
	return out
}

func protoProblems(list language.ErrorList) []*vpnv1.Problem {
	out := make([]*vpnv1.Problem, len(list))
	for i, e := range list {
		out[i] = &vpnv1.Problem{Line: int32(e.Line), Column: int32(e.Column), Message: e.Message, Warning: e.Warning, Code: string(e.Code)}
	}
	return out
}

func protoSettings(set peers.Settings) *vpnv1.Settings {
	return &vpnv1.Settings{
		Endpoint: set.Endpoint, Url: set.URL, Routes: texts(set.Routes), Dns: texts(set.DNS),
		Session: durationpb.New(set.Session), Network: texts(set.Network),
		Mtu: uint32(set.MTU), Masquerade: set.Masquerade,
	}
}

func protoClosed(list []control.Closed) []*vpnv1.Closed {
	out := make([]*vpnv1.Closed, len(list))
	for i, c := range list {
		out[i] = &vpnv1.Closed{Gateway: c.Gateway, Done: c.Done, Error: c.Error}
	}
	return out
}
