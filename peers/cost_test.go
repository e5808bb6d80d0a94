package peers

import (
	"testing"
	"time"
)

// What a command costs must not grow with the number of objects. Allocations are the
// measure, as they do not depend on how busy the machine is; between these sizes the
// trees grow by two or three levels.
func TestCostDoesNotGrow(t *testing.T) {
	type costs struct{ enrolment, login, failure, removal float64 }
	measure := func(n int) (c costs) {
		cl := newCluster(t, "10.0.0.0/8")
		populate(cl, n)
		devices := make([]ID, 0, n)
		for d := range cl.View().Devices() {
			devices = append(devices, d.ID)
		}
		i := n
		c.enrolment = testing.AllocsPerRun(20, func() { enrol(cl, number("user", i), "phone"); i++ })
		j := 0
		c.login = testing.AllocsPerRun(20, func() {
			cl.now = cl.now.Add(30 * time.Second)
			must(cl, Login{devices[j%len(devices)], cl.step(1)})
			j++
		})
		k := 0
		c.failure = testing.AllocsPerRun(20, func() {
			k = (k + 1) % 10
			must(cl, Failure{id(number("user", k))})
		})
		l := 0
		c.removal = testing.AllocsPerRun(5, func() { must(cl, UserRemove{id(number("user", l))}); l++ })
		return c
	}
	small, large := measure(20), measure(3000)
	for _, c := range []struct {
		name         string
		small, large float64
	}{
		{"enrolment", small.enrolment, large.enrolment}, {"login", small.login, large.login},
		{"failure", small.failure, large.failure}, {"removal", small.removal, large.removal},
	} {
		if c.large > 1.8*c.small {
			t.Errorf("%s: %.0f allocations with 20 devices, %.0f with 3,000", c.name, c.small, c.large)
		}
		t.Logf("%s: %.0f and %.0f allocations", c.name, c.small, c.large)
	}
}
