package language

import (
	"errors"
	"fmt"
)

// Code is a stable word for a kind of fault, for programs; the message is for people.
type Code string

// The codes; docs/policy.md has them with their meaning.
const (
	CodeBadAddress          Code = "bad_address"           // what is no address and no prefix, or not in its one spelling
	CodeBadDestination      Code = "bad_destination"       // a destination without its ports
	CodeBadExpires          Code = "bad_expires"           // what "expires" cannot be
	CodeBadHours            Code = "bad_hours"             // what "hours" cannot be
	CodeBadMFA              Code = "bad_mfa"               // what "mfa" cannot be
	CodeBadName             Code = "bad_name"              // what is no name
	CodeBadPort             Code = "bad_port"              // what is no port
	CodeBadProtocol         Code = "bad_protocol"          // what is no protocol
	CodeCycle               Code = "cycle"                 // a group or IP set that contains itself
	CodeDuplicate           Code = "duplicate"             // a key that stands here twice
	CodeGrantsNothing       Code = "grants_nothing"        // a grant without a source or a destination (warning)
	CodeHostOrUser          Code = "host_or_user"          // a name that is a host's and a user's (warning)
	CodeInternal            Code = "internal"              // a mistake of vpnd's own, not of the text
	CodeLocalTarget         Code = "local_target"          // a target on the gateway's own host that is not allowed there
	CodeMissingKey          Code = "missing_key"           // a key that is needed
	CodeMoreFaults          Code = "more_faults"           // more faults than are shown
	CodeNoPorts             Code = "no_ports"              // ports with a protocol that has none
	CodeOverBudget          Code = "over_budget"           // more work than a policy may make
	CodeOverLimit           Code = "over_limit"            // more of something than a policy may have
	CodeRefusedPart         Code = "refused_part"          // a part that is refused itself is named here
	CodeReservedName        Code = "reserved_name"         // a name that is vpnd's own
	CodeResourceAsSource    Code = "resource_as_source"    // a resource as a source
	CodeResourceFromNetwork Code = "resource_from_network" // a network as a source of a resource's grant
	CodeSelfAsSource        Code = "self_as_source"        // autogroup:self as a source
	CodeSelfWithoutDevices  Code = "self_without_devices"  // autogroup:self for sources without devices of their own
	CodeServiceAddress      Code = "service_address"       // an address that is kept for resources
	CodeSyntax              Code = "syntax"                // the text is not HuJSON
	CodeTestFailed          Code = "test_failed"           // a test of the policy's own fails
	CodeTestsNothing        Code = "tests_nothing"         // a test without anything to test
	CodeTooLarge            Code = "too_large"             // the text is too large
	CodeTooLong             Code = "too_long"              // a note is too long
	CodeUnknownGroup        Code = "unknown_group"         // a group that is not defined
	CodeUnknownHost         Code = "unknown_host"          // a host that is not defined
	CodeUnknownIPSet        Code = "unknown_ipset"         // an IP set that is not defined
	CodeUnknownKey          Code = "unknown_key"           // a key that there is not
	CodeUnknownKind         Code = "unknown_kind"          // a prefix of names that there is not
	CodeUnknownName         Code = "unknown_name"          // a name of no host and no user
	CodeUnknownTag          Code = "unknown_tag"           // a tag that is not defined
	CodeUnknownUser         Code = "unknown_user"          // a user who is not there yet (warning)
	CodeUnsupported         Code = "unsupported"           // something of other products that is not supported
	CodeWrongMember         Code = "wrong_member"          // what cannot be in a group, an IP set or the owners of a tag
	CodeWrongType           Code = "wrong_type"            // a value of another type than belongs here
)

// Codes are all of them.
func Codes() []Code {
	return []Code{
		CodeBadAddress,
		CodeBadDestination,
		CodeBadExpires,
		CodeBadHours,
		CodeBadMFA,
		CodeBadName,
		CodeBadPort,
		CodeBadProtocol,
		CodeCycle,
		CodeDuplicate,
		CodeGrantsNothing,
		CodeHostOrUser,
		CodeInternal,
		CodeLocalTarget,
		CodeMissingKey,
		CodeMoreFaults,
		CodeNoPorts,
		CodeOverBudget,
		CodeOverLimit,
		CodeRefusedPart,
		CodeReservedName,
		CodeResourceAsSource,
		CodeResourceFromNetwork,
		CodeSelfAsSource,
		CodeSelfWithoutDevices,
		CodeServiceAddress,
		CodeSyntax,
		CodeTestFailed,
		CodeTestsNothing,
		CodeTooLarge,
		CodeTooLong,
		CodeUnknownGroup,
		CodeUnknownHost,
		CodeUnknownIPSet,
		CodeUnknownKey,
		CodeUnknownKind,
		CodeUnknownName,
		CodeUnknownTag,
		CodeUnknownUser,
		CodeUnsupported,
		CodeWrongMember,
		CodeWrongType,
	}
}

// fault is an error of a part of the text, before it is known where that part stands.
type fault struct {
	code    Code
	message string
}

func (f *fault) Error() string { return f.message }

func faultf(c Code, format string, args ...any) error { return &fault{c, fmt.Sprintf(format, args...)} }

// Err adds a fault of faultf. Whatever else fails has no business here: it is told apart.
func (f *Faults) Err(p TextRange, err error) {
	code := CodeInternal
	if x, ok := errors.AsType[*fault](err); ok {
		code = x.code
	}
	f.add(p, false, code, "%s", err)
}
