package control

import (
	"slices"
	"testing"

	"vpnd/peers"
)

func TestEveryRefusalOfStateHasWords(t *testing.T) {
	for _, c := range peers.Codes() {
		text, ok := refusalTexts[c.Name]
		if !ok {
			t.Errorf("%s has no text", c.Name)
		}
		for _, m := range placeholder.FindAllStringSubmatch(text, -1) {
			if !slices.Contains(c.Params, m[1]) {
				t.Errorf("%s: there is no parameter %s", c.Name, m[1])
			}
		}
	}
	if n := len(peers.Codes()); n != len(refusalTexts) {
		t.Errorf("%d texts for %d codes", len(refusalTexts), n)
	}
}
