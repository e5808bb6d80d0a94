package api

import (
	"context"
	"fmt"
	"math"
	"net/netip"

	"vpnd/internal/control"
	"vpnd/peers"
	vpnv1 "vpnd/proto/vpn/v1"
)

const (
	auditDefault = 100
	auditMax     = 10000
	maxRoutes    = 1000 // networks, or DNS servers, in one request
)

// gatewayServer decodes, calls and encodes for GatewayService.
type gatewayServer struct {
	vpnv1.UnimplementedGatewayServiceServer
	*Edge
}

// GetStatus returns what the gateway is and how it does.
func (g gatewayServer) GetStatus(ctx context.Context, _ *vpnv1.GetStatusRequest) (*vpnv1.GetStatusResponse, error) {
	st := g.s.Status(ctx)
	v := g.s.View()
	set, _ := v.Settings()
	now := g.s.Time(v)
	users, devices, _ := v.Counts()
	out := &vpnv1.GetStatusResponse{
		Version: st.Version, Node: st.Node, Role: "no leader",
		Index: v.Index(), AppliedIndex: st.Applied,
		Settings: g.settings(set), PublicKey: protoKey(set.PublicKey),
		Users: int32(users), Devices: int32(devices),
		StartedAt: timestamp(st.Started), StateTime: timestamp(v.Time()),
		CaFingerprint: g.s.CAFingerprint(), TunnelUrl: g.s.TunnelURL(), PendingPolicy: protoPending(v.Pending()),
		Plane: st.Plane.Plane, PlaneDetail: st.Plane.Detail,
	}
	for _, c := range st.Plane.Filters {
		out.Complaints = append(out.Complaints, c.String())
	}
	if st.PlaneErr != nil {
		out.Complaints = []string{"the data plane does not answer: " + st.PlaneErr.Error()}
	}
	if why := peers.NotPublic(set.Endpoint); why != "" {
		out.Complaints = append(out.Complaints, "people elsewhere cannot dial "+set.Endpoint+", as "+why+": vpnctl settings set --endpoint HOST:PORT names what they can")
	}
	for _, d := range st.Spellings {
		out.Complaints = append(out.Complaints, "the key of "+d+" has a second spelling, which may have been revoked: vpnctl device rotate "+d+" gives it a new one")
	}
	out.Complaints = append(out.Complaints, st.Attention...)
	for _, e := range st.Ignored {
		out.Complaints = append(out.Complaints, fmt.Sprintf("line %d of the policy: %s", e.Line, e.Message))
	}
	if st.Leader {
		out.Role = "leader"
	}
	for ss := range v.Sessions() {
		if now.Before(ss.Until) {
			out.Sessions++
		}
	}
	if p := v.Policy(); p != nil {
		out.PolicyVersion = p.Version
	}
	return out, nil
}

// ListAudit returns entries of the audit log, oldest first.
func (g gatewayServer) ListAudit(_ context.Context, r *vpnv1.ListAuditRequest) (*vpnv1.ListAuditResponse, error) {
	limit := int(r.GetLimit())
	if limit == 0 {
		limit = auditDefault
	}
	if limit < 0 || limit > auditMax {
		return nil, control.Refuse("audit_limit", auditMax, limit)
	}
	out := &vpnv1.ListAuditResponse{}
	for _, e := range g.s.View().Audit(r.GetAfter(), limit) {
		out.Entries = append(out.Entries, &vpnv1.AuditEntry{
			Index: e.Index, At: timestamp(e.At), Actor: e.Actor, Action: e.Action, Target: e.Target, Detail: e.Detail,
		})
	}
	return out, nil
}

// SetSettings changes the cluster's settings.
func (g gatewayServer) SetSettings(ctx context.Context, r *vpnv1.SetSettingsRequest) (*vpnv1.SetSettingsResponse, error) {
	if len(r.GetRoutes()) > maxRoutes || len(r.GetDns()) > maxRoutes {
		return nil, control.Refuse("addresses_limit", maxRoutes)
	}
	c := peers.Configure{Endpoint: r.Endpoint, URL: r.Url, Masquerade: r.Masquerade}
	if r.Mtu != nil {
		// What is too large for State is too large in any case.
		mtu := uint16(min(r.GetMtu(), math.MaxUint16))
		c.MTU = &mtu
	}
	length, err := duration(r.GetSession(), "session")
	if err != nil {
		return nil, err
	}
	if length != 0 {
		c.Session = &length
	}
	if r.GetSetRoutes() {
		var routes []netip.Prefix
		if routes, err = parsePrefixes(r.GetRoutes()); err != nil {
			return nil, err
		}
		c.Routes = &routes
	}
	if r.GetSetDns() {
		var dns []netip.Addr
		if dns, err = parseAddrs(r.GetDns()); err != nil {
			return nil, err
		}
		c.DNS = &dns
	}
	if c == (peers.Configure{}) {
		return nil, control.Refuse("nothing_to_change")
	}
	set, names, err := g.s.SetSettings(ctx, c)
	if err != nil {
		return nil, err
	}
	return &vpnv1.SetSettingsResponse{Settings: g.settings(set), Outdated: names}, nil
}

func (g gatewayServer) settings(set peers.Settings) *vpnv1.Settings {
	out := protoSettings(set)
	for _, o := range g.s.Origins(set) {
		out.Origins = append(out.Origins, &vpnv1.Origin{Setting: o.Setting, From: o.From, Pinned: o.Pinned})
	}
	return out
}

// ResetTime ends all sessions and sets the state's time to the clock's.
func (g gatewayServer) ResetTime(ctx context.Context, _ *vpnv1.ResetTimeRequest) (*vpnv1.ResetTimeResponse, error) {
	at, n, err := g.s.ResetTime(ctx)
	if err != nil {
		return nil, err
	}
	return &vpnv1.ResetTimeResponse{StateTime: timestamp(at), Ended: int32(n)}, nil
}

// parsePrefixes reads networks behind the gateway.
func parsePrefixes(texts []string) ([]netip.Prefix, error) {
	out := make([]netip.Prefix, 0, len(texts))
	for _, t := range texts {
		p, err := netip.ParsePrefix(t)
		if err != nil {
			return nil, control.Refuse("prefix_invalid", short(t))
		}
		if p != p.Masked() {
			return nil, control.Refuse("prefix_bits", p, p.Masked())
		}
		out = append(out, p)
	}
	return out, nil
}

// parseAddrs reads addresses.
func parseAddrs(texts []string) ([]netip.Addr, error) {
	out := make([]netip.Addr, 0, len(texts))
	for _, t := range texts {
		a, err := netip.ParseAddr(t)
		if err != nil || a.Zone() != "" {
			return nil, control.Refuse("address_invalid", short(t))
		}
		out = append(out, a)
	}
	return out, nil
}
