package language

// kind is what the JSON Schema says of a value of the grammar.
type kind map[string]any

// node is an object of the grammar, whatever struct it fills.
type node interface {
	schema() kind
}

func (o *object[T]) schema() kind {
	properties, required := kind{}, []any{}
	for _, f := range o.fields {
		k := kind{"description": f.doc}
		for name, v := range f.kind {
			k[name] = v
		}
		properties[f.name] = k
		if f.required {
			required = append(required, f.name)
		}
	}
	k := kind{"type": "object", "properties": properties, "additionalProperties": false}
	if len(required) > 0 {
		k["required"] = required
	}
	return k
}

func listOf(k kind) kind { return kind{"type": "array", "items": k} }

func oneOrListOf(k kind) kind { return kind{"anyOf": []any{k, listOf(k)}} }

func mapOf(names, values kind) kind {
	return kind{"type": "object", "propertyNames": names, "additionalProperties": values}
}

func text(pattern string) kind { return kind{"type": "string", "pattern": pattern} }

// objectKind puts an object of the grammar where it is used. It is a function because
// the objects are made in the same breath as what refers to them.
func objectKind(o func() node) kind { return kind{"$object": o} }

// Patterns of the grammar's strings. What a pattern cannot say, such as the bounds of
// an address, is left to the parser: whatever the parser takes, the patterns match.
const (
	namePattern     = `[A-Za-z][A-Za-z0-9._-]*`
	userPattern     = `[^\s:/*,"]+`
	addressPattern  = `[0-9A-Fa-f.:]+(/[0-9]{1,3})?`
	portsPattern    = `(\*|[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*)`
	protoPattern    = `[A-Za-z0-9-]+`
	selectorPattern = `(\*|autogroup:(member|tagged|self)|(group|tag|ipset|host):` + namePattern + `|` + addressPattern + `|` + userPattern + `)`
)

var (
	groupNameKind = text(`^group:` + namePattern + `$`)
	tagNameKind   = text(`^tag:` + namePattern + `$`)
	ipsetNameKind = text(`^ipset:` + namePattern + `$`)
	hostNameKind  = text(`^` + namePattern + `$`)
	memberKind    = text(`^(group:` + namePattern + `|` + userPattern + `)$`)
	prefixKind    = text(`^` + addressPattern + `$`)
	ipsetOpKind   = text(`^\s*((add|remove)\s+)?((ipset|host):` + namePattern + `|` + addressPattern + `|` + namePattern + `)\s*$`)
	ownerKind     = text(`^(autogroup:(admin|member)|group:` + namePattern + `|` + userPattern + `)$`)
	selectorKind  = text(`^` + selectorPattern + `$`)
	portedKind    = text(`^(` + selectorPattern + `|\[[0-9A-Fa-f.:]+\](/[0-9]{1,3})?):` + portsPattern + `$`)
	ipKind        = text(`^(` + portsPattern + `|(` + protoPattern + `|\*)(:` + portsPattern + `)?)$`)
	protoKind     = text(`^` + protoPattern + `$`)
	mfaKind       = text(`^(off|([0-9]+h)?([0-9]+m)?([0-9]+s)?)$`)
	hoursKind     = text(`^\s*\S+\s+[0-9]{2}:[0-9]{2}-[0-9]{2}:[0-9]{2}\s+[A-Za-z0-9/_+-]+\s*$`)
	expiresKind   = kind{"type": "string", "format": "date-time"}
	toKind        = text(`^(unix:/.+|(http://)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f.:]+\]|[0-9A-Fa-f.:]+)(:[0-9]+)?/?)$`)
	noteKind      = kind{"type": "string", "maxLength": MaxNote}
)
