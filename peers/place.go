package peers

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"vpnd/acl/rules"
)

// A resource of the policy has a place in the upper half of each prefix of the network, the
// same in all, from level 5 on: place 1 is the first address behind the half's own. It keeps
// the place for as long as its name is in the policy, and afterwards while others are free:
// so that what somebody wrote down does not soon lead to something else. When none is left the
// one that has been gone longest is given again, at the earliest after keepPlace.

// place is a place that a resource has, or had last.
type place struct {
	Place uint32 `cbor:"1,keyasint"`
	Name  string `cbor:"2,keyasint"`
	Gone  stamp  `cbor:"3,keyasint,omitempty"` // since when the policy does not have it; 0: it has
}

// keepPlace is how long a place is kept for a name that has gone.
const keepPlace = 30 * 24 * time.Hour

// goneKey sorts those that have gone by when they went, before those that are there.
func (p *place) goneKey() []byte {
	at := uint64(p.Gone)
	if p.Gone == 0 {
		at = 1<<64 - 1
	}
	return binary.BigEndian.AppendUint32(orderKey(at), p.Place)
}

// placesOf is how many places there are in a network.
func placesOf(network []netip.Prefix) uint32 {
	n := uint32(maxPlaces)
	for _, p := range network {
		u := rules.Upper(p)
		if !u.IsValid() || size(u) < 3 {
			return 0
		}
		n = min(n, size(u)-2) // but for the half's own address and its last one
	}
	return n
}

// placeAddrs are the addresses of a place, one of each prefix.
func placeAddrs(network []netip.Prefix, place uint32) []netip.Addr {
	addrs := make([]netip.Addr, 0, len(network))
	for _, p := range network {
		if a, ok := addrAt(rules.Upper(p), place); ok {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// checkResources checks the names that a policy's text has, and that there are places for
// those that have none.
func (t *tx) checkResources(names []string) error {
	if len(names) > maxResources {
		return refuse("resources_limit", len(names), maxResources)
	}
	for i, name := range names {
		if name == "" || len(name) > maxResource || i > 0 && names[i-1] >= name {
			return refuse("resource_name_invalid", shorten(name))
		}
	}
	_, err := assign(t, t.m, names)
	return err
}

// assign finds a place for each of the names that has none; 0: it has one.
func assign(r reader, m meta, names []string) ([]uint32, error) {
	next, most := m.nextPlace, placesOf(m.Settings.Network)
	places := make([]uint32, len(names))
	var missing []int
	for i, name := range names {
		switch {
		case get[place](r, tablePlaces, byName, []byte(name)) != nil:
		case next < most:
			next++
			places[i] = next
		default:
			missing = append(missing, i)
		}
	}
	if len(missing) == 0 {
		return places, nil
	}
	for p := range scan[place](r, tablePlaces, byGone, nil) {
		if p.Gone == 0 || m.Time < p.Gone+stamp(keepPlace) {
			break
		}
		if _, again := slices.BinarySearch(names, p.Name); again {
			continue
		}
		if places[missing[0]], missing = p.Place, missing[1:]; len(missing) == 0 {
			return places, nil
		}
	}
	return nil, refuse("resources_full", len(names), most, prefixes(m.Settings.Network))
}

// publish gives the resources of the policy in force their places; checkResources has seen
// that there are enough.
func (t *tx) publish(names []string) {
	places, err := assign(t, t.m, names)
	if err != nil {
		t.fail(fmt.Errorf("placing the resources of a version that had places: %w", err))
		return
	}
	for p := range scan[place](t, tablePlaces, byID, nil) {
		_, there := slices.BinarySearch(names, p.Name)
		switch {
		case there && p.Gone != 0:
			t.put(tablePlaces, &place{p.Place, p.Name, 0})
		case !there && p.Gone == 0:
			t.put(tablePlaces, &place{p.Place, p.Name, max(t.m.Time, 1)})
		}
	}
	for i, n := range places {
		if n != 0 {
			t.put(tablePlaces, &place{n, names[i], 0})
			t.m.nextPlace = max(t.m.nextPlace, n)
		}
	}
}

// keepPlaces makes those that have gone later than now, by a clock that was wrong, go now.
func (t *tx) keepPlaces() {
	for p := range scan[place](t, tablePlaces, byID, nil) {
		if p.Gone > t.m.Time {
			t.put(tablePlaces, &place{p.Place, p.Name, max(t.m.Time, 1)})
		}
	}
}

func placeKey(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }

// checkPlace looks at what a snapshot has.
func checkPlace(network []netip.Prefix) func(*place) error {
	most := placesOf(network)
	return func(p *place) error {
		if p.Place < 1 || p.Place > most || p.Name == "" || len(p.Name) > maxResource || p.Gone < 0 {
			return fmt.Errorf("place %d of %q is none", p.Place, shorten(p.Name))
		}
		return nil
	}
}
