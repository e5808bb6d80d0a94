package control

import (
	"encoding/hex"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/totp"
)

// rfcSecret is the seed of RFC 4226 appendix D and of RFC 6238 appendix B for SHA-1.
const rfcSecret = "12345678901234567890"

// RFC 4226, appendix D.
func TestHOTPVectors(t *testing.T) {
	secret := totpEncoding.EncodeToString([]byte(rfcSecret))
	for count, want := range []string{
		"755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489",
	} {
		got, err := totpCode(secret, int64(count))
		if err != nil || got != want {
			t.Errorf("count %d: %s, %v; want %s", count, got, err, want)
		}
	}
}

// RFC 6238, appendix B: seeds of 20, 32 and 64 bytes (erratum 2866).
func TestTOTPVectors(t *testing.T) {
	seeds := map[otp.Algorithm]string{
		otp.AlgorithmSHA1:   rfcSecret,
		otp.AlgorithmSHA256: strings.Repeat(rfcSecret, 2)[:32],
		otp.AlgorithmSHA512: strings.Repeat(rfcSecret, 4)[:64],
	}
	vectors := []struct {
		at   int64
		step string // hex
		want map[otp.Algorithm]string
	}{
		{59, "0000000000000001", codesOf("94287082", "46119246", "90693936")},
		{1111111109, "00000000023523EC", codesOf("07081804", "68084774", "25091201")},
		{1111111111, "00000000023523ED", codesOf("14050471", "67062674", "99943326")},
		{1234567890, "000000000273EF07", codesOf("89005924", "91819424", "93441116")},
		{2000000000, "0000000003F940AA", codesOf("69279037", "90698825", "38618901")},
		{20000000000, "0000000027BC86AA", codesOf("65353130", "77737706", "47863826")},
	}
	for _, v := range vectors {
		at := time.Unix(v.at, 0)
		if got := strings.ToUpper(hex.EncodeToString(big64(totpStep(at)))); got != v.step {
			t.Errorf("step of %d: %s, want %s", v.at, got, v.step)
		}
		for algorithm, want := range v.want {
			got, err := totp.GenerateCodeCustom(totpEncoding.EncodeToString([]byte(seeds[algorithm])), at,
				totp.ValidateOpts{Period: 30, Digits: otp.DigitsEight, Algorithm: algorithm})
			if err != nil || got != want {
				t.Errorf("%v at %d: %s, %v; want %s", algorithm, v.at, got, err, want)
			}
		}
		// Ours is the same number with its last six digits, and accepts it then.
		secret := totpEncoding.EncodeToString([]byte(rfcSecret))
		want := v.want[otp.AlgorithmSHA1][2:]
		if got, err := totpCode(secret, totpStep(at)); err != nil || got != want {
			t.Errorf("at %d: %s, %v; want %s", v.at, got, err, want)
		}
		if step, verdict, err := checkTOTP(secret, want, at, 0); err != nil || verdict != codeRight || step != totpStep(at) {
			t.Errorf("at %d: step %d, verdict %d, %v", v.at, step, verdict, err)
		}
	}
}

func codesOf(sha1, sha256, sha512 string) map[otp.Algorithm]string {
	return map[otp.Algorithm]string{otp.AlgorithmSHA1: sha1, otp.AlgorithmSHA256: sha256, otp.AlgorithmSHA512: sha512}
}

func big64(n int64) []byte {
	b := make([]byte, 8)
	for i := range b {
		b[7-i] = byte(n >> (8 * i))
	}
	return b
}

func TestCheckTOTPWindow(t *testing.T) {
	secret := totpEncoding.EncodeToString([]byte(rfcSecret))
	now := time.Unix(1111111111, 0)
	at := totpStep(now)
	code := func(step int64) string {
		c, err := totpCode(secret, step)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	for _, c := range []struct {
		offset, last int64 // last relative to at
		want         verdict
	}{
		{-2, -9, codeWrong}, {-1, -9, codeRight}, {0, -9, codeRight}, {1, -9, codeRight}, {2, -9, codeWrong},
		{0, 0, codeUsed}, {-1, 0, codeUsed}, {1, 0, codeRight}, {1, 1, codeUsed}, {0, -1, codeRight}, {-1, -1, codeUsed},
		{2, 2, codeWrong}, {0, 1000, codeUsed},
	} {
		step, got, err := checkTOTP(secret, code(at+c.offset), now, at+c.last)
		if err != nil || got != c.want || got == codeRight && step != at+c.offset {
			t.Errorf("step %+d after %+d: verdict %d with step %+d, %v; want %d", c.offset, c.last, got, step-at, err, c.want)
		}
	}
}

// An empty secret has valid codes in the library, a short one is weak: neither opens.
func TestEmptySecretOpensNothing(t *testing.T) {
	now := time.Unix(1111111111, 0)
	for _, secret := range []string{"", "JBSWY3DP", "not base32!"} {
		code, err := totp.GenerateCode(secret, now)
		if err != nil {
			code = "000000"
		}
		if _, v, err := checkTOTP(secret, code, now, 0); err == nil || v != codeWrong {
			t.Errorf("secret %q: verdict %d, %v", secret, v, err)
		} else if secret != "" && strings.Contains(err.Error(), secret) {
			t.Errorf("the error quotes the secret: %v", err)
		}
	}
}

func TestNextCode(t *testing.T) {
	for _, c := range []struct {
		now  float64
		last int64
		want time.Duration
	}{
		{300, 10, 30 * time.Second}, {329.5, 10, time.Second}, {310.2, 10, 20 * time.Second},
		{310, 9, time.Second},       // an older code: a new one is there already
		{310, 11, 30 * time.Second}, // an authenticator that is ahead
		{300, 130, 3630 * time.Second},
	} {
		if got := nextCode(time.Unix(0, int64(c.now*1e9)), c.last); got != c.want {
			t.Errorf("nextCode(%v, %d) = %v, want %v", c.now, c.last, got, c.want)
		}
	}
}

func TestOTPAuthURL(t *testing.T) {
	for _, c := range []struct{ portal, user, label, issuer string }{
		{"https://vpn.example.com:8443", "alice", "/vpnd vpn.example.com:alice", "vpnd vpn.example.com"},
		{"https://[fd00::1]:8443", "bob@example.com", "/vpnd fd00--1:bob@example.com", "vpnd fd00--1"},
	} {
		raw := otpauthURL(issuer(c.portal), c.user, "ABC")
		if strings.ContainsAny(raw, " +") {
			t.Errorf("%s has a space or a plus", raw)
		}
		u, err := url.Parse(raw)
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		if u.Scheme != "otpauth" || u.Host != "totp" || u.Path != c.label || q.Get("issuer") != c.issuer ||
			q.Get("secret") != "ABC" || q.Get("algorithm") != "SHA1" || q.Get("digits") != "6" || q.Get("period") != "30" {
			t.Errorf("%s is read as %q %v", raw, u.Path, q)
		}
		key, err := otp.NewKeyFromURL(raw)
		if err != nil || key.Issuer() != c.issuer || key.AccountName() != c.user {
			t.Errorf("%s: issuer %q, account %q, %v", raw, key.Issuer(), key.AccountName(), err)
		}
	}
}

func FuzzCheckTOTP(f *testing.F) {
	secret := totpEncoding.EncodeToString([]byte(rfcSecret))
	for _, s := range []string{"287082", " 287082", "28708２", ""} {
		f.Add(s, int64(59))
	}
	f.Fuzz(func(t *testing.T, code string, at int64) {
		if at < 0 || at > 1<<40 {
			return
		}
		now := time.Unix(at, 0)
		step, v, err := checkTOTP(secret, code, now, 0)
		if err != nil {
			t.Fatal(err)
		}
		if v == codeWrong {
			return
		}
		want, err := totpCode(secret, step)
		if err != nil || want != code || (step-totpStep(now)) > 1 || (totpStep(now)-step) > 1 {
			t.Fatalf("%q accepted for step %d at %d", code, step, at)
		}
	})
}
