package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// printJSON prints the daemon's answer under the names that proto/vpn/v1/vpn.proto gives,
// in its order: that file documents them. It is protobuf's JSON mapping (times in RFC
// 3339, durations as "43200s", absent where nothing is known), except that every number
// is a JSON number, which that mapping reads too: a script compares indexes and bytes.
func (a *app) printJSON(m proto.Message) error {
	b, err := appendMessage(nil, m.ProtoReflect(), "\n")
	if err != nil {
		return fmt.Errorf("encode the answer: %w", err)
	}
	a.write(string(append(b, '\n')))
	return nil
}

// appendMessage appends m; nl is a line feed and the indentation of what m stands in.
func appendMessage(b []byte, m protoreflect.Message, nl string) ([]byte, error) {
	switch m := m.Interface().(type) {
	case *timestamppb.Timestamp:
		return appendString(b, m.AsTime().Format("2006-01-02T15:04:05.999999999Z")), m.CheckValid()
	case *durationpb.Duration:
		return appendString(b, strconv.FormatFloat(m.AsDuration().Seconds(), 'f', -1, 64)+"s"), m.CheckValid()
	}
	fields := m.Descriptor().Fields()
	b = append(b, '{')
	comma := false
	for i := range fields.Len() {
		f := fields.Get(i)
		if f.HasPresence() && !m.Has(f) {
			continue
		}
		if comma {
			b = append(b, ',')
		}
		comma = true
		b = append(b, nl+"  "...)
		b = appendString(b, string(f.Name()))
		b = append(b, ": "...)
		var err error
		if f.IsList() {
			b, err = appendList(b, f, m.Get(f).List(), nl+"  ")
		} else {
			b, err = appendValue(b, f, m.Get(f), nl+"  ")
		}
		if err != nil {
			return nil, err
		}
	}
	if comma {
		b = append(b, nl...)
	}
	return append(b, '}'), nil
}

func appendList(b []byte, f protoreflect.FieldDescriptor, l protoreflect.List, nl string) ([]byte, error) {
	b = append(b, '[')
	for i := range l.Len() {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, nl+"  "...)
		var err error
		if b, err = appendValue(b, f, l.Get(i), nl+"  "); err != nil {
			return nil, err
		}
	}
	if l.Len() > 0 {
		b = append(b, nl...)
	}
	return append(b, ']'), nil
}

func appendValue(b []byte, f protoreflect.FieldDescriptor, v protoreflect.Value, nl string) ([]byte, error) {
	switch f.Kind() {
	case protoreflect.MessageKind:
		return appendMessage(b, v.Message(), nl)
	case protoreflect.StringKind:
		return appendString(b, v.String()), nil
	case protoreflect.BoolKind:
		return strconv.AppendBool(b, v.Bool()), nil
	case protoreflect.Int32Kind, protoreflect.Int64Kind:
		return strconv.AppendInt(b, v.Int(), 10), nil
	case protoreflect.Uint32Kind, protoreflect.Uint64Kind:
		return strconv.AppendUint(b, v.Uint(), 10), nil
	}
	return nil, fmt.Errorf("field %s is of a kind that vpnctl cannot print: %v", f.FullName(), f.Kind())
}

// appendString quotes s, and spells characters that could steer a terminal as escapes.
func appendString(b []byte, s string) []byte {
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false) // no page will hold it
	if err := e.Encode(s); err != nil {
		panic(err) // not for a string
	}
	quoted := bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
	for len(quoted) > 0 {
		r, n := utf8.DecodeRune(quoted)
		if steers(r) {
			b = fmt.Appendf(b, `\u%04x`, r)
		} else {
			b = append(b, quoted[:n]...)
		}
		quoted = quoted[n:]
	}
	return b
}
