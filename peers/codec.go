package peers

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// The encoding is CBOR by RFC 8949's core deterministic rules (section 4.2.1): maps
// with integer keys in order, no default fields, no tags, no floats. Times are Unix
// nanoseconds. Decoding refuses what encoding would not have written, to the byte.

var (
	encMode = mustMode(cbor.EncOptions{
		Sort:          cbor.SortCoreDeterministic,
		IndefLength:   cbor.IndefLengthForbidden,
		TagsMd:        cbor.TagsForbidden,
		NilContainers: cbor.NilContainerAsEmpty,
		OmitEmpty:     cbor.OmitEmptyGoValue,
		BigIntConvert: cbor.BigIntConvertReject,
	}.EncMode())
	decMode = mustMode(cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		MaxArrayElements:  1 << 16,
		MaxNestedLevels:   8,
	}.DecMode())
)

// lenient reads the level from what may have fields of the future.
var lenient = mustMode(cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden}.DecMode())

// mustMode panics on options that contradict each other: a mistake in this file.
func mustMode[M any](m M, err error) M {
	if err != nil {
		panic(err)
	}
	return m
}

// envelope is a command's outer form.
type envelope struct {
	Kind    kind            `cbor:"1,keyasint"`
	Request ID              `cbor:"2,keyasint,omitzero"`
	At      stamp           `cbor:"3,keyasint,omitempty"`
	Actor   string          `cbor:"4,keyasint,omitempty"`
	Body    cbor.RawMessage `cbor:"5,keyasint"`
	Base    uint64          `cbor:"6,keyasint,omitempty"`
}

// Encode gives a command's canonical bytes.
func Encode(c Command) ([]byte, error) {
	if c.Body == nil {
		return nil, errors.New("encoding a command: it has no body")
	}
	body, err := encMode.Marshal(c.Body)
	if err == nil {
		err = checkTime(c.At)
	}
	if err != nil {
		return nil, fmt.Errorf("encoding a command of kind %d: %w", c.Body.kind(), err)
	}
	b, err := encMode.Marshal(envelope{c.Body.kind(), c.Request, stampOf(c.At), c.Actor, body, c.Base})
	if err != nil {
		return nil, fmt.Errorf("encoding a command of kind %d: %w", c.Body.kind(), err)
	}
	// What no node could read, such as invalid UTF-8, must not get into the log.
	if _, err := Decode(b); err != nil {
		return nil, fmt.Errorf("encoding a command of kind %d: %w", c.Body.kind(), err)
	}
	return b, nil
}

// Decode reads what Encode wrote and refuses everything else.
func Decode(b []byte) (Command, error) {
	var e envelope
	if err := decMode.Unmarshal(b, &e); err != nil {
		return Command{}, fmt.Errorf("decoding a command: %w", err)
	}
	k, ok := kinds[e.Kind]
	if !ok {
		return Command{}, fmt.Errorf("decoding a command: %w: %d; it needs a newer vpnd", ErrUnknownKind, e.Kind)
	}
	if e.Kind == kindUpgrade {
		if err := refuseTooNew(e.Body); err != nil {
			return Command{}, fmt.Errorf("decoding a command: %w", err)
		}
	}
	body, err := k.decode(e.Body)
	if err != nil {
		return Command{}, fmt.Errorf("decoding a command of kind %d: %w", e.Kind, err)
	}
	c := Command{e.Request, e.Base, e.At.time(), e.Actor, body}
	if e.Body, err = encMode.Marshal(body); err != nil {
		return Command{}, fmt.Errorf("decoding a command of kind %d: %w", e.Kind, err)
	}
	again, err := encMode.Marshal(e)
	if err != nil {
		return Command{}, fmt.Errorf("decoding a command of kind %d: %w", e.Kind, err)
	}
	if !bytes.Equal(again, b) {
		return Command{}, fmt.Errorf("decoding a command of kind %d: not in canonical form", e.Kind)
	}
	return c, nil
}

// unwire reads the wire form of an object that holds times, as commands and snapshots have
// it. Fields and their numbers are frozen once released; a new field takes the next number.
func unwire[W any](b []byte) (W, error) {
	var w W
	err := decMode.Unmarshal(b, &w)
	return w, err
}
