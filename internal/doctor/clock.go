package doctor

import "golang.org/x/sys/unix"

// Adjtimex asks the kernel how its clock is kept (adjtimex(2)); reading needs no privilege,
// but a sandbox with ProtectClock= refuses the call.
func Adjtimex() (state int, status int32, err error) {
	var t unix.Timex
	state, err = unix.Adjtimex(&t)
	return state, t.Status, err
}

// timeError is adjtimex's TIME_ERROR: the clock is not synchronised.
const timeError = 5

// Clock says whether something keeps the clock.
func Clock(adjtimex func() (state int, status int32, err error)) []*Finding {
	state, status, err := adjtimex()
	switch {
	case err != nil:
		return []*Finding{find("clock_unseen", "why", err)}
	case state == timeError || status&unix.STA_UNSYNC != 0:
		return []*Finding{find("clock_free")}
	}
	return []*Finding{find("clock_ok")}
}
