package control

import "time"

// factor is a second factor: what proves, beside the device's key, that it is the person
// who signs in. TOTP is the one kind there is.
type factor interface {
	// newSecret makes what an authenticator and the gateway share.
	newSecret() ([]byte, error)
	// setup is the URL from which an authenticator takes it.
	setup(portalURL, user string, secret []byte) string
	// plausible says whether a proof has the form of one. One that has not is refused
	// without being counted: it tells a guesser nothing.
	plausible(proof string) bool
	// check compares a proof with a secret at an instant. A right one spends a step, which
	// must be above the last one that was spent.
	check(secret []byte, proof string, now time.Time, last int64) (step int64, v verdict, err error)
}

type verdict int

const (
	codeWrong verdict = iota
	codeUsed          // right, but its step is not above the last accepted one
	codeRight
)

// totpFactor is the codes of an authenticator app.
type totpFactor struct{}

func (totpFactor) newSecret() ([]byte, error) {
	s, err := newTOTPSecret()
	return []byte(s), err
}

func (totpFactor) setup(portalURL, user string, secret []byte) string {
	return otpauthURL(issuer(portalURL), user, string(secret))
}

func (totpFactor) plausible(proof string) bool { return sixDigits(proof) }

func (totpFactor) check(secret []byte, proof string, now time.Time, last int64) (int64, verdict, error) {
	return checkTOTP(string(secret), proof, now, last)
}
