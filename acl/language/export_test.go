package language

import (
	"maps"
	"slices"
)

// Word is an object of the grammar as the tests see it: its fields, and the forms of other
// products that it refuses by name.
type Word struct {
	Fields  []string
	Foreign map[string]string
}

// AcceptedTexts are policies of every form that there is.
var AcceptedTexts = acceptedTexts

// The objects of the grammar.
var (
	File      = Word{file.names(), file.foreign}
	AGrant    = Word{grantObject.names(), grantObject.foreign}
	AnACL     = Word{aclObject.names(), aclObject.foreign}
	AResource = Word{resourceObject.names(), resourceObject.foreign}
	ATest     = Word{testObject.names(), testObject.foreign}
)

// Forms are the words for groups that are made here and for protocols; foreign are those of other products.
func Forms() (words []string, foreign map[string]string) {
	foreign = map[string]string{}
	for _, f := range foreignSelectors {
		foreign[f.prefix] = f.instead
	}
	return slices.Concat(slices.Collect(maps.Keys(autogroups)), slices.Collect(maps.Keys(Protocols))), foreign
}
