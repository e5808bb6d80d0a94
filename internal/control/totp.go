package control

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base32"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"
)

// TOTP as every authenticator app has it (RFC 6238): SHA-1, 6 digits, 30 s. Apps ignore
// other parameters.
const (
	totpDigits     = 6
	totpPeriod     = 30 * time.Second
	totpWindow     = 1  // steps that a clock may be off, either way
	totpSecretSize = 20 // bytes: RFC 4226 recommends the length of SHA-1's output
)

var totpEncoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// newTOTPSecret returns a random secret as base32, as apps take it.
func newTOTPSecret() (string, error) {
	b := make([]byte, totpSecretSize)
	if _, err := rand.Read(b); err != nil {
		return "", fmt.Errorf("make a TOTP secret: %w", err)
	}
	return totpEncoding.EncodeToString(b), nil
}

// sixDigits says whether s is exactly six ASCII digits. The otp library would accept
// spaces and newlines around them.
func sixDigits(s string) bool {
	if len(s) != totpDigits {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}

// totpStep is the RFC's T: how many periods have passed since 1970.
func totpStep(t time.Time) int64 { return t.Unix() / int64(totpPeriod/time.Second) }

// totpStart is when a step begins.
func totpStart(step int64) time.Time { return time.Unix(step*int64(totpPeriod/time.Second), 0) }

// checkTOTP looks for the step within the window whose code this is. A code whose step
// was accepted before, or is older than that, is codeUsed. It takes the same time for
// every code.
func checkTOTP(secret, code string, now time.Time, last int64) (step int64, v verdict, err error) {
	// An empty secret has valid codes in the library; nobody may sign in with it.
	raw, err := totpEncoding.DecodeString(secret)
	if err != nil || len(raw) < totpSecretSize {
		return 0, codeWrong, errors.New("the stored TOTP secret is damaged")
	}
	if !sixDigits(code) {
		return 0, codeWrong, nil
	}
	at := totpStep(now)
	for s := at - totpWindow; s <= at+totpWindow; s++ {
		if s < 0 {
			continue
		}
		want, err := totpCode(secret, s)
		if err != nil {
			return 0, codeWrong, err
		}
		if subtle.ConstantTimeCompare([]byte(want), []byte(code)) != 1 {
			continue
		}
		switch {
		case s > last && v != codeRight: // the oldest unused step wins: it spends the least
			step, v = s, codeRight
		case s <= last && v == codeWrong:
			step, v = s, codeUsed
		}
	}
	return step, v, nil
}

// totpCode is the code of a step.
func totpCode(secret string, step int64) (string, error) {
	code, err := hotp.GenerateCodeCustom(secret, uint64(step), hotp.ValidateOpts{
		Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1,
	})
	if err != nil {
		// The library's error may quote the secret.
		return "", errors.New("the stored TOTP secret is damaged")
	}
	return code, nil
}

// nextCode is how long it takes until an authenticator shows a code that is later than
// the one of step last; at least a second. It is at most a period unless last lies far
// in the future: an authenticator that is a step ahead shows its next code that much
// sooner.
func nextCode(now time.Time, last int64) time.Duration {
	d := totpStart(last + 1).Sub(now)
	d = max((d + time.Second - 1).Truncate(time.Second), time.Second)
	if last <= totpStep(now)+totpWindow {
		d = min(d, totpPeriod)
	}
	return d
}

// otpauthURL is what an authenticator scans. The issuer has no ':' (it separates issuer
// and account) and spaces are %20: some apps show a '+' as such.
func otpauthURL(issuer, account, secret string) string {
	issuer = strings.ReplaceAll(issuer, ":", "-")
	label := url.PathEscape(issuer) + ":" + url.PathEscape(account)
	return "otpauth://totp/" + label + "?secret=" + secret +
		"&issuer=" + strings.ReplaceAll(url.QueryEscape(issuer), "+", "%20") +
		"&algorithm=SHA1&digits=6&period=30"
}

// issuer names this gateway in an authenticator's list.
func issuer(portalURL string) string {
	u, err := url.Parse(portalURL)
	if err != nil || u.Hostname() == "" {
		return "vpnd"
	}
	return "vpnd " + u.Hostname()
}
