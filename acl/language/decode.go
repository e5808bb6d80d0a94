package language

import (
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"strconv"
	"time"

	"github.com/tailscale/hujson"
)

// Limits of a policy's text. They keep a hostile text from costing much before it is
// refused, and are far beyond what people write.
const (
	MaxText   = 4 << 20 // bytes
	maxDepth  = 16      // nested objects and lists; the grammar needs 4
	MaxValues = 400_000 // values in the text, names of members included
)

// decoder reads one policy text.
type decoder struct {
	Faults
	zones  map[string]*time.Location // looked up so far; nil: no such zone
	values int                       // in the text

	carried map[string]netip.Prefix // what checkDestination has found of IP sets

	stored  bool      // the text was accepted before (ParseStored)
	ignored ErrorList // of what is stored
}

// field is a member that an object of the grammar may have.
type field[T any] struct {
	name     string
	doc      string
	required bool
	kind     kind // what the JSON Schema says of the value
	decode   func(d *decoder, into *T, v *hujson.Value)
}

// object is an object of the grammar: the parser and the JSON Schema are made from it.
type object[T any] struct {
	what   string // "a grant"
	fields []field[T]
	// foreign are members that other products know, each with what exists here instead.
	foreign map[string]string
}

func (o *object[T]) names() []string {
	n := make([]string, len(o.fields))
	for i, f := range o.fields {
		n[i] = f.name
	}
	return n
}

// decode reads v into the struct; unknown, foreign, repeated and missing members are
// faults. It tells whether v is an object at all.
func (o *object[T]) decode(d *decoder, into *T, v *hujson.Value) bool {
	obj, ok := v.Value.(*hujson.Object)
	if !ok {
		d.Errorf(textRangeOf(v), CodeWrongType, "%s is an object {…}, not %s", o.what, kindName(v))
		return false
	}
	seen := map[string]bool{}
	for i := range obj.Members {
		m := &obj.Members[i]
		name := stringOf(&m.Name)
		if seen[name] {
			d.Errorf(textRangeOf(&m.Name), CodeDuplicate, "%q stands here twice: keep one", name)
			continue
		}
		seen[name] = true
		known := false
		for _, f := range o.fields {
			if f.name == name {
				f.decode(d, into, &m.Value)
				known = true
				break
			}
		}
		if known {
			continue
		}
		if instead, ok := o.foreign[name]; ok {
			d.Errorf(textRangeOf(&m.Name), CodeUnsupported, "%q is not supported: %s", name, instead)
		} else {
			d.Errorf(textRangeOf(&m.Name), CodeUnknownKey, "%s has no %q%s", o.what, Short(name), d.hint(name, o.names))
		}
	}
	for _, f := range o.fields {
		if f.required && !seen[f.name] {
			d.Errorf(TextRange{v.StartOffset, v.StartOffset + 1}, CodeMissingKey, "%s needs %q: %s", o.what, f.name, f.doc)
		}
	}
	return true
}

// members reads an object whose names are the policy's own: groups, hosts and so on.
func (d *decoder) members(what string, v *hujson.Value, each func(name string, key, value *hujson.Value)) {
	obj, ok := v.Value.(*hujson.Object)
	if !ok {
		d.Errorf(textRangeOf(v), CodeWrongType, "%s is an object {…}, not %s", what, kindName(v))
		return
	}
	seen := make(map[string]bool, len(obj.Members))
	for i := range obj.Members {
		m := &obj.Members[i]
		name := stringOf(&m.Name)
		if seen[name] {
			d.Errorf(textRangeOf(&m.Name), CodeDuplicate, "%q stands here twice: merge the two", name)
			continue
		}
		seen[name] = true
		each(name, &m.Name, &m.Value)
	}
}

// elements reads a list.
func (d *decoder) elements(what string, v *hujson.Value, each func(*hujson.Value)) {
	arr, ok := v.Value.(*hujson.Array)
	if !ok {
		d.Errorf(textRangeOf(v), CodeWrongType, "%s is a list […], not %s", what, kindName(v))
		return
	}
	for i := range arr.Elements {
		each(&arr.Elements[i])
	}
}

// strings reads a list of strings.
func (d *decoder) strings(what string, v *hujson.Value, each func(s string, v *hujson.Value)) {
	d.elements(what, v, func(e *hujson.Value) {
		if s, ok := d.string("an element of "+what, e); ok {
			each(s, e)
		}
	})
}

// stringOrStrings reads one string or a list of them.
func (d *decoder) stringOrStrings(what string, v *hujson.Value, each func(s string, v *hujson.Value)) {
	if v.Value.Kind() == '"' {
		each(stringOf(v), v)
		return
	}
	d.strings(what, v, each)
}

// string reads a string.
func (d *decoder) string(what string, v *hujson.Value) (string, bool) {
	if v.Value.Kind() != '"' {
		d.Errorf(textRangeOf(v), CodeWrongType, "%s is a string \"…\", not %s", what, kindName(v))
		return "", false
	}
	return stringOf(v), true
}

func stringOf(v *hujson.Value) string {
	lit := v.Value.(hujson.Literal)
	if len(lit) >= 2 && lit[0] == '"' {
		// Most strings need no unescaping, which costs an unmarshal each.
		plain := true
		for _, c := range lit[1 : len(lit)-1] {
			if c == '\\' || c < 0x20 || c > 0x7e {
				plain = false
				break
			}
		}
		if plain {
			return string(lit[1 : len(lit)-1])
		}
	}
	return lit.String()
}

func kindName(v *hujson.Value) string {
	switch v.Value.Kind() {
	case '{':
		return "an object"
	case '[':
		return "a list"
	case '"':
		return "a string"
	case 'n':
		return "null"
	case 't', 'f':
		return "a boolean"
	default:
		return "a number"
	}
}

// parseHuJSON reads the text's syntax. It says nothing of meaning.
func (d *decoder) parseHuJSON() (*hujson.Value, bool) {
	text := d.src.text
	if len(text) > MaxText && !d.stored {
		d.Errorf(TextRange{0, 0}, CodeTooLarge, "the policy has %d bytes, the limit is %d: split what it lists into prefixes or groups that say the same shorter", len(text), MaxText)
		return nil, false
	}
	var at int
	var why string
	most := MaxValues
	if d.stored {
		most = math.MaxInt
	}
	if d.values, at, why = measure(text, most); why != "" {
		d.Errorf(TextRange{at, at + 1}, CodeOverLimit, "%s", why)
		return nil, false
	}
	v, err := hujson.Parse(text)
	if err != nil {
		at, why := syntaxError(d.src, err)
		d.Errorf(TextRange{at, at + 1}, CodeSyntax, "this is not HuJSON: %s", why)
		return nil, false
	}
	return &v, true
}

// measure walks over the text before it is parsed, counts its values and says where it
// passes a limit of depth or size: the parser recurses, and keeps some 100 bytes for every
// value.
func measure(text []byte, most int) (values, at int, why string) {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '{', '[':
			if depth++; depth > maxDepth {
				return values, i, fmt.Sprintf("more than %d nested brackets: no part of a policy needs them", maxDepth)
			}
			values++
		case '}', ']':
			depth--
		case ',', ':':
			if values++; values > most {
				return values, i, fmt.Sprintf("more than %d values: the limit of a policy", MaxValues)
			}
		case '"':
			for i++; i < len(text) && text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
		case '/':
			if i+1 < len(text) && text[i+1] == '/' {
				for i < len(text) && text[i] != '\n' {
					i++
				}
			} else if i+1 < len(text) && text[i+1] == '*' {
				for i += 2; i < len(text) && !(text[i] == '*' && i+1 < len(text) && text[i+1] == '/'); i++ {
				}
				i++
			}
		}
	}
	return values, 0, ""
}

var hujsonPosition = regexp.MustCompile(`^hujson: line (\d+), column (\d+): (.*)$`)

// syntaxError takes the position out of the parser's message.
func syntaxError(s *source, err error) (offset int, why string) {
	m := hujsonPosition.FindStringSubmatch(Short(err.Error()))
	if m == nil {
		return 0, Short(err.Error())
	}
	line, _ := strconv.Atoi(m[1])
	column, _ := strconv.Atoi(m[2])
	if line < 1 || line > len(s.lines) {
		return 0, m[3]
	}
	return s.lines[line-1] + column - 1, m[3]
}
