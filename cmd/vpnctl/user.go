package main

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	vpnv1 "vpnd/proto/vpn/v1"
)

type userCmd struct {
	Add       userAddCmd       `cmd:"" help:"Add a person and print her invitation."`
	Ls        userLsCmd        `cmd:"" help:"List everybody." aliases:"list"`
	Show      userShowCmd      `cmd:"" help:"Show a person and her devices."`
	Invite    userInviteCmd    `cmd:"" help:"Print a new invitation; it replaces an unused one."`
	Disable   userDisableCmd   `cmd:"" help:"Sign her out everywhere and let none of her devices in."`
	Enable    userEnableCmd    `cmd:"" help:"Let her in again."`
	Unlock    userUnlockCmd    `cmd:"" help:"Lift the lock that wrong codes have caused."`
	ResetTotp userResetTOTPCmd `cmd:"" name:"reset-totp" help:"Take her authenticator away and invite her to set up another."`
	Rm        userRmCmd        `cmd:"" help:"Remove a person with her devices, for good." aliases:"remove"`
}

// userArg is the argument of the commands about one user.
type userArg struct {
	Name string `arg:"" help:"Her name." predictor:"user"`
}

type userAddCmd struct {
	Name string `arg:"" help:"Her name, unique without regard to case."`
	invitationFlags
}

func (c *userAddCmd) Run(ctx context.Context, a *app) error {
	r, err := a.api.users().AddUser(ctx, &vpnv1.AddUserRequest{Name: c.Name, Valid: c.valid()})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(r)
	}
	a.printf("%s was added.\n", r.User.GetName())
	return a.invitation(r.Invitation, c.invitationFlags)
}

type userLsCmd struct{}

func (c *userLsCmd) Run(ctx context.Context, a *app) error {
	r, err := a.api.users().ListUsers(ctx, &vpnv1.ListUsersRequest{})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(r)
	}
	if len(r.Users) == 0 {
		a.notef("nobody yet: vpnctl user add NAME invites the first person")
		return nil
	}
	t := newTable("NAME", "STATE", "DEVICES", "SIGNED IN")
	for _, u := range r.Users {
		t.add(text(u.Name), a.userState(u), text(fmt.Sprint(len(u.Devices))), signedIn(u.Sessions))
	}
	t.draw(a.ui)
	return nil
}

func signedIn(n int32) cell {
	if n == 0 {
		return cell{"-", faint}
	}
	return cell{fmt.Sprint(n), good}
}

// userState is the one thing about a user that matters most.
func (a *app) userState(u *vpnv1.User) cell {
	locked := u.LockedUntil != nil && u.LockedUntil.AsTime().After(a.now())
	invited := u.InvitedUntil != nil && u.InvitedUntil.AsTime().After(a.now())
	switch {
	case u.Disabled:
		return cell{"disabled", bad}
	case locked:
		return cell{"locked, ends " + a.relative(u.LockedUntil.AsTime()), bad}
	case !u.Enrolled && invited:
		return cell{"invited, ends " + a.relative(u.InvitedUntil.AsTime()), warn}
	case !u.Enrolled:
		return cell{"not enrolled, no invitation", warn}
	case invited:
		return cell{"enrolled, invited again", plain}
	}
	return text("enrolled")
}

type userShowCmd struct{ userArg }

func (c *userShowCmd) Run(ctx context.Context, a *app) error {
	r, err := a.api.users().GetUser(ctx, &vpnv1.GetUserRequest{Name: c.Name})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(r)
	}
	u := r.User
	var f facts
	f.addStyled("name", u.GetName(), bold)
	state := a.userState(u)
	f.addStyled("state", state.text, state.style)
	f.add("added", a.when(u.CreatedAt))
	f.add("authenticator", map[bool]string{true: "set up", false: "none yet"}[u.Enrolled])
	if u.Failures > 0 {
		f.addStyled("wrong codes", fmt.Sprintf("%d in a row", u.Failures), warn)
	}
	f.addStyled("locked until", a.when(u.LockedUntil), bad)
	f.add("invited until", a.when(u.InvitedUntil))
	f.draw(a.ui)
	if len(r.Devices) > 0 {
		a.printf("\n")
		a.deviceTable(r.Devices)
	}
	return nil
}

type userInviteCmd struct {
	userArg
	invitationFlags
}

func (c *userInviteCmd) Run(ctx context.Context, a *app) error {
	r, err := a.api.users().InviteUser(ctx, &vpnv1.InviteUserRequest{Name: c.Name, Valid: c.valid()})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(r)
	}
	return a.invitation(r.Invitation, c.invitationFlags)
}

type userDisableCmd struct{ userArg }

func (c *userDisableCmd) Run(ctx context.Context, a *app) error {
	return a.enableUser(ctx, c.Name, false)
}

type userEnableCmd struct{ userArg }

func (c *userEnableCmd) Run(ctx context.Context, a *app) error {
	return a.enableUser(ctx, c.Name, true)
}

func (a *app) enableUser(ctx context.Context, name string, enabled bool) error {
	r, err := a.api.users().SetUserEnabled(ctx, &vpnv1.SetUserEnabledRequest{Name: name, Enabled: enabled})
	if err != nil {
		return err
	}
	switch {
	case a.json:
		err = a.printJSON(r)
	case enabled:
		a.printf("%s is enabled; she has to sign in again.\n", r.User.GetName())
	default:
		a.printf("%s is disabled%s.\n", r.User.GetName(), closedOn(r.Closed))
	}
	if err != nil {
		return err
	}
	return a.closed(r.Closed)
}

type userUnlockCmd struct{ userArg }

func (c *userUnlockCmd) Run(ctx context.Context, a *app) error {
	r, err := a.api.users().UnlockUser(ctx, &vpnv1.UnlockUserRequest{Name: c.Name})
	if err != nil {
		return err
	}
	if a.json {
		return a.printJSON(r)
	}
	a.printf("%s is unlocked; her failures are forgotten.\n", r.User.GetName())
	return nil
}

type userResetTOTPCmd struct {
	userArg
	invitationFlags
}

func (c *userResetTOTPCmd) Run(ctx context.Context, a *app) error {
	r, err := a.api.users().ResetTotp(ctx, &vpnv1.ResetTotpRequest{Name: c.Name, Valid: c.valid()})
	if err != nil {
		return err
	}
	if a.json {
		err = a.printJSON(r)
	} else {
		a.printf("%s has no authenticator any more and is signed out%s.\n", c.Name, closedOn(r.Closed))
		err = a.invitation(r.Invitation, c.invitationFlags)
	}
	if err != nil {
		return err
	}
	return a.closed(r.Closed)
}

type userRmCmd struct {
	userArg
	Yes bool `short:"y" help:"Do not ask."`
}

func (c *userRmCmd) Run(ctx context.Context, a *app) error {
	if !c.Yes {
		u, err := a.api.users().GetUser(ctx, &vpnv1.GetUserRequest{Name: c.Name})
		if err != nil {
			return err
		}
		if err := a.confirm(ctx, false, fmt.Sprintf("remove %s%s, for good?", u.User.GetName(), withDevices(len(u.Devices)))); err != nil {
			return err
		}
	}
	r, err := a.api.users().RemoveUser(ctx, &vpnv1.RemoveUserRequest{Name: c.Name})
	if err != nil {
		return err
	}
	if a.json {
		err = a.printJSON(r)
	} else {
		a.printf("%s is removed%s%s.\n", c.Name, withDevices(int(r.Devices)), closedOn(r.Closed))
	}
	if err != nil {
		return err
	}
	return a.closed(r.Closed)
}

func withDevices(n int) string {
	if n == 0 {
		return ""
	}
	return " with " + number(n, "device")
}

// invitationFlags are those of every command that makes an invitation.
type invitationFlags struct {
	Valid time.Duration `help:"How long the invitation is valid, as 12h or 7d (default: 48h)." placeholder:"DURATION"`
	QR    bool          `name:"qr" help:"Draw the QR code even if the output is no terminal." xor:"qr"`
	NoQR  bool          `name:"no-qr" help:"Draw no QR code." xor:"qr"`
}

func (f invitationFlags) valid() *durationpb.Duration {
	if f.Valid == 0 {
		return nil // the daemon's default
	}
	return durationpb.New(f.Valid)
}
