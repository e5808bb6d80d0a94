package main

import (
	"fmt"
	"strings"

	vpnv1 "vpnd/proto/vpn/v1"
)

// invitation prints what its holder needs. The link is a secret that is shown this once.
func (a *app) invitation(i *vpnv1.Invitation, f invitationFlags) error {
	if i == nil {
		return fmt.Errorf("vpnd sent no invitation: vpnctl user invite makes one")
	}
	a.printf("\nInvitation for %s, good for one device until %s:\n\n    %s\n\n", i.User, a.when(i.ExpiresAt), i.Link)
	if f.QR || a.outTTY && !f.NoQR {
		missing, err := a.drawQR(i.Link)
		if err != nil {
			return err
		}
		if missing > 0 {
			a.notef("the QR code needs %d columns more than this terminal has", missing)
		} else {
			a.write("\n")
		}
	}
	if i.CaFingerprint != "" {
		a.printf("The browser is going to say that the connection is not private, because this gateway\nvouches for itself. Before going on, open the certificate (by the warning, or by the sign\nbefore the address): the last one in its chain must have this SHA-256 fingerprint:\n\n")
		for _, line := range fingerprint(i.CaFingerprint) {
			a.printf("    %s\n", line)
		}
		a.printf("\n")
	}
	a.printf("Whoever has the link can enrol as %s: send it by a way that only she reads.\n", i.User)
	return nil
}

// fingerprint breaks 32 bytes in hex with colons into two lines of 16.
func fingerprint(s string) []string {
	parts := strings.Split(s, ":")
	if len(parts) != 32 {
		return []string{s}
	}
	return []string{strings.Join(parts[:16], ":") + ":", strings.Join(parts[16:], ":")}
}
