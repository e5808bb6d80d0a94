package reconcile

import (
	"time"

	"vpnd/internal/dataplane"
	"vpnd/peers"
)

// A self-test is a peer like a device's, but the policy does not know it: it reaches the
// sign-in page and nothing else. There are few, so all are compared at each change. Its end
// comes here by the clock alone, whether anybody leads who could commit it or not.

// tests are the self-tests that the plane has, and until when the state's may be there.
type tests struct {
	has   map[dataplane.Key]dataplane.Device
	until map[dataplane.Key]time.Time
}

// live are the state's self-tests that have not ended. What is left of one is counted from
// when it is first seen: a clock that is set back does not lengthen it.
func (t *tests) live(v *peers.View, now time.Time) map[dataplane.Key]dataplane.Device {
	live, until := map[dataplane.Key]dataplane.Device{}, map[dataplane.Key]time.Time{}
	for x := range v.SelfTests() {
		k := dataplane.Key(x.PublicKey)
		end, seen := t.until[k]
		if !seen {
			end = now.Add(x.End.Sub(now.Add(behind(v, now))))
		}
		if until[k] = end; now.Before(end) {
			live[k] = dataplane.Device{ID: "self-test " + x.PublicKey.String(), Name: "self-test", PublicKey: k, Addrs: x.Addrs}
		}
	}
	t.until = until
	return live
}

// next is when the first of those ends that the plane has.
func (t *tests) next() (next time.Time) {
	for k := range t.has {
		if end, ok := t.until[k]; ok && (next.IsZero() || end.Before(next)) {
			next = end
		}
	}
	return next
}

// change puts into c what differs from what the plane has.
func (t *tests) change(c *dataplane.Change, live map[dataplane.Key]dataplane.Device) {
	for k, d := range t.has {
		if _, ok := live[k]; !ok {
			c.RemoveDevices = append(c.RemoveDevices, d)
		}
	}
	for k, d := range live {
		if _, ok := t.has[k]; !ok {
			c.PutDevices = append(c.PutDevices, d)
		}
	}
}
