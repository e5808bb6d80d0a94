package peers

import (
	"fmt"
	"iter"
	"net/netip"
	"time"
)

// A self-test is a WireGuard peer that is nobody's, from level 4 on: with it a gateway finds
// out whether it answers. It has a place in the network like a device, no session and no
// grant, and it ends by itself a minute after it began, on the state's clock, so that a
// gateway that died in the middle leaves nothing open. The policy never hears of it.

// SelfTest is one that is there. It may have ended.
type SelfTest struct {
	PublicKey Key
	Addrs     []netip.Addr // IPv4, IPv6
	End       time.Time
}

type selfTest struct {
	PublicKey Key    `cbor:"1,keyasint"`
	Host      uint32 `cbor:"2,keyasint"` // its place in the network, see address.go
	End       stamp  `cbor:"3,keyasint"`
}

// SelfTestBegin makes the peer.
type SelfTestBegin struct {
	PublicKey Key `cbor:"1,keyasint,omitzero"`
}

func (c SelfTestBegin) apply(t *tx) (Result, error) {
	if err := t.checkNewKey(c.PublicKey); err != nil {
		return Result{}, err
	}
	if t.m.selfTests >= maxSelfTests {
		return Result{}, refuse("self_tests_limit", maxSelfTests)
	}
	host, take, err := t.takeHost()
	if err != nil {
		return Result{}, err
	}
	take()
	x := &selfTest{c.PublicKey, host, t.m.Time + stamp(selfTestLength)}
	t.put(tableSelfTests, x)
	t.m.selfTests++
	t.audit("gateway.selftest", "", "addresses "+addresses(t.m.Settings.addrs(host))+", until "+clock(x.End.time()))
	return Result{}, nil
}

// SelfTestEnd takes the peer away before its time. There need not be one.
type SelfTestEnd struct {
	PublicKey Key `cbor:"1,keyasint,omitzero"`
}

func (c SelfTestEnd) apply(t *tx) (Result, error) {
	x := get[selfTest](t, tableSelfTests, byID, c.PublicKey[:])
	if x == nil {
		return Result{}, nil
	}
	t.endSelfTest(x)
	return Result{Count: 1}, nil
}

// endSelfTest gives its place back. The place that was given last is as good as never given:
// nobody but the gateway itself has known it. So that tests, however many, use no place up.
func (t *tx) endSelfTest(x *selfTest) {
	t.delete(tableSelfTests, x)
	t.m.selfTests--
	if x.Host+1 == t.m.NextHost {
		t.m.NextHost--
		return
	}
	t.m.Releases++
	t.put(tableReleased, &released{t.m.Releases, x.Host})
}

// expireSelfTests is Expire's part; below level 4 there are none.
func (t *tx) expireSelfTests() (n int) {
	for x := range scan[selfTest](t, tableSelfTests, byEnd, nil) {
		if t.m.Time < x.End {
			break
		}
		t.endSelfTest(x)
		n++
	}
	return n
}

// endSelfTests ends all of them: an end on a clock that was wrong means nothing.
func (t *tx) endSelfTests() {
	for x := range scan[selfTest](t, tableSelfTests, byID, nil) {
		t.endSelfTest(x)
	}
}

// checkSelfTest looks at what a snapshot has.
func checkSelfTest(x *selfTest, s *Settings) error {
	if err := checkKey(x.PublicKey); err != nil {
		return err
	}
	if s == nil || x.Host < firstHost || x.Host >= hosts(s.Network) {
		return fmt.Errorf("a self-test has the place %d, which is no device's", x.Host)
	}
	if x.End <= 0 || x.End > maxTime+stamp(selfTestLength) {
		return fmt.Errorf("a self-test ends at %d, which is no time", x.End)
	}
	return nil
}

// SelfTests yields all that are there by end, also those that have ended.
func (v *View) SelfTests() iter.Seq[SelfTest] {
	return func(yield func(SelfTest) bool) {
		for x := range scan[selfTest](v, tableSelfTests, byEnd, nil) {
			if !yield(SelfTest{x.PublicKey, v.m.Settings.addrs(x.Host), x.End.time()}) {
				return
			}
		}
	}
}
