package peers

import (
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

func TestNoteAndActor(t *testing.T) {
	c := newCluster(t)
	must(c, Note{"plane.repaired", "table inet vpnd", "flushed by hand"})
	e := c.View().Audit(0, 1)[0]
	if e.Action != "plane.repaired" || e.Actor != "test" || e.Index != c.index || !e.At.Equal(c.now) {
		t.Errorf("the entry is %+v", e)
	}
	refused(c, Note{"", "x", "y"}, ErrInvalid)
	refused(c, Note{"x", "\x1b[2J", "y"}, ErrInvalid)
	refused(c, Note{"x", "y", "right \u202e to left"}, ErrInvalid)
	refused(c, Note{"x", "y", strings.Repeat("z", maxNote+1)}, ErrLimit)
	if r := c.command(Command{At: c.now, Actor: "a\nb", Body: Expire{}}); r.Err == nil {
		t.Error("an actor of two lines is accepted")
	}
}

func TestAudit(t *testing.T) {
	c := newCluster(t)
	for i := range maxAudit + 5 {
		must(c, Note{"n", fmt.Sprint(i), ""})
		c.log = c.log[:0]
	}
	v := c.View()
	all := v.Audit(0, 0)
	if len(all) != maxAudit || all[len(all)-1].Target != fmt.Sprint(maxAudit+4) || all[0].Target != "5" {
		t.Errorf("%d entries are kept, %q to %q", len(all), all[0].Target, all[len(all)-1].Target)
	}
	newest := v.Audit(0, 3)
	if len(newest) != 3 || newest[2].Index != v.Index() || newest[0].Index != v.Index()-2 {
		t.Errorf("the newest are %+v", newest)
	}
	next := v.Audit(newest[0].Index, 1)
	if len(next) != 1 || next[0] != newest[1] {
		t.Errorf("the next is %+v", next)
	}
	if rest := v.Audit(v.Index(), 10); len(rest) != 0 {
		t.Errorf("after the last come %+v", rest)
	}
}

func TestAuditHoldsNoSecrets(t *testing.T) {
	c := newCluster(t)
	u, d := enrol(c, "alice", "laptop")
	must(c, DeviceRotate{d.ID, key("new"), Sealed("canary psk")})
	must(c, TOTPReset{u.ID})
	must(c, InvitationAdd{u.ID, invitation("second")})
	must(c, EnrolBegin{invitation("second").ID, hash("browser"), Sealed("canary TOTP")})
	all := fmt.Sprint(c.View().Audit(0, 0))
	for _, secret := range []string{"canary", "sealed", hex.EncodeToString([]byte("canary")), string(fmt.Appendf(nil, "%v", hash("second"))), fmt.Sprintf("%x", hash("second"))} {
		if strings.Contains(all, secret) {
			t.Errorf("the audit log holds %q", secret)
		}
	}
	for _, action := range []string{"cluster.init", "user.add", "enrol.begin", "device.enrol", "device.rotate", "user.reset-totp", "invitation.add"} {
		if !strings.Contains(all, action) {
			t.Errorf("the audit log has no %s", action)
		}
	}
}
