package filter

import (
	"math/rand/v2"
	"testing"
	"time"

	"vpnd/acl/rules"
	"vpnd/internal/dataplane"
)

// TestBlocks: the maps, asked in order, know every port's class, for random pieces.
func TestBlocks(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	fixed := [][]rules.Ports{
		{{Proto: 6, First: 0, Last: 65535, Class: 1}},
		{{Proto: 6, First: 443, Last: 443, Class: 1}},
		{{Proto: 6, First: 0, Last: 442, Class: 1}, {Proto: 6, First: 443, Last: 443, Class: 2}, {Proto: 6, First: 444, Last: 65535, Class: 1}},
		{{Proto: 17, First: 65535, Last: 65535, Class: 3}},
		{{Proto: 17, First: 1, Last: 40000, Class: 3}},
	}
	for range 200 {
		var pieces []rules.Ports
		for at := rnd.IntN(3000); at < 65536; {
			last := min(65535, at+rnd.IntN(1<<rnd.IntN(17)))
			pieces = append(pieces, rules.Ports{Proto: 6, First: uint16(at), Last: uint16(last), Class: rules.ClassID(1 + rnd.IntN(3))})
			at = last + 1 + rnd.IntN(2)*rnd.IntN(5000)
		}
		if len(pieces) > 0 {
			fixed = append(fixed, pieces)
		}
	}
	for _, pieces := range fixed {
		maps := make(map[int]map[uint16]rules.ClassID)
		n := 0
		for _, b := range blocks(pieces) {
			if maps[b.bits] == nil {
				maps[b.bits] = make(map[uint16]rules.ClassID)
			}
			if _, twice := maps[b.bits][b.port]; twice {
				t.Fatalf("%v: block %v stands twice", pieces, b)
			}
			maps[b.bits][b.port] = b.class
			n++
		}
		if limit := 110 * (2*len(pieces) + 1); n > limit {
			t.Errorf("%d pieces make %d blocks", len(pieces), n)
		}
		for port := 0; port < 65536; port++ {
			var want, got rules.ClassID
			for _, p := range pieces {
				if int(p.First) <= port && port <= int(p.Last) {
					want = p.Class
				}
			}
			for _, bits := range blockBits {
				if c, ok := maps[bits][uint16(port)&^uint16(1<<bits-1)]; ok {
					got = c
					break
				}
			}
			if got != want {
				t.Fatalf("%v: port %d has class %d, want %d", pieces, port, got, want)
			}
		}
	}
}

// TestChain: the code that began the chain, and when the chain ends.
func TestChain(t *testing.T) {
	at := func(minutes int) time.Time { return time.Date(2030, 1, 1, 0, minutes, 0, 0, time.UTC) }
	codes := []dataplane.Code{{Serial: 1, At: at(0)}, {Serial: 2, At: at(20)}, {Serial: 3, At: at(30)}}
	for _, c := range []struct {
		fresh, now int // minutes
		until      int
		serial     uint32 // 0: closed
		end        int
	}{
		{fresh: 15, now: 31, until: 600, serial: 2, end: 45},
		{fresh: 15, now: 45, until: 600},
		{fresh: 10, now: 31, until: 600, serial: 3, end: 40}, // a gap of exactly the freshness breaks
		{fresh: 60, now: 31, until: 600, serial: 1, end: 90},
		{fresh: 60, now: 31, until: 50, serial: 1, end: 50},
		{fresh: 60, now: 50, until: 50},
	} {
		s := session{until: at(c.until), codes: codes}
		serial, until, ok := s.chain(time.Duration(c.fresh)*time.Minute, at(c.now))
		if ok != (c.serial != 0) || serial != c.serial || (ok && !until.Equal(at(c.end))) {
			t.Errorf("%+v: got %d until %v, %v", c, serial, until, ok)
		}
		// The oracle for open flows agrees with the kernel's sets.
		for _, code := range codes {
			v := s.openedBy(code.Serial, at(c.now))
			alive := v.Until.After(at(c.now)) && v.Code.Add(time.Duration(c.fresh)*time.Minute).After(at(c.now))
			if alive && code.Serial < serial || alive && !ok {
				t.Errorf("%+v: a flow of code %d lives", c, code.Serial)
			}
			if ok && code.Serial == serial && !alive {
				t.Errorf("%+v: a flow of code %d is dead", c, code.Serial)
			}
		}
	}
}

func TestFreshName(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "off", 12 * time.Hour: "12h", 15 * time.Minute: "15m", 10 * time.Second: "10s", 90 * time.Second: "1m30s",
		90 * time.Minute: "1h30m", 12*time.Hour + 5*time.Second: "12h0m5s", 20 * time.Minute: "20m", 24 * time.Hour: "24h", 100 * time.Hour: "100h",
	} {
		if got := freshName(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}
