package api

import (
	"strings"

	"google.golang.org/grpc/codes"

	"vpnd/internal/control"
)

// statuses gives each kind of refusal its gRPC status. ErrorInfo carries code and parameters.
var statuses = map[string]codes.Code{
	control.KindNotFound:          codes.NotFound,
	control.KindExists:            codes.AlreadyExists,
	control.KindInvalid:           codes.InvalidArgument,
	control.KindDisabled:          codes.FailedPrecondition,
	control.KindLocked:            codes.ResourceExhausted,
	control.KindCodeInvalid:       codes.Unauthenticated,
	control.KindCodeUsed:          codes.Unauthenticated,
	control.KindNotEnrolled:       codes.FailedPrecondition,
	control.KindInvitationUnknown: codes.NotFound,
	control.KindInvitationExpired: codes.FailedPrecondition,
	control.KindInvitationUsed:    codes.FailedPrecondition,
	control.KindOtherBrowser:      codes.FailedPrecondition,
	control.KindKeyTaken:          codes.AlreadyExists,
	control.KindFull:              codes.ResourceExhausted,
	control.KindConflict:          codes.Aborted,
	control.KindTooOld:            codes.Aborted,
	control.KindLimit:             codes.ResourceExhausted,
	control.KindTooLarge:          codes.InvalidArgument,
	control.KindClockBehind:       codes.FailedPrecondition,
	control.KindNoLeader:          codes.Unavailable,
	control.KindUnavailable:       codes.Unavailable,
	control.KindCanceled:          codes.Canceled,
	control.KindDeadline:          codes.DeadlineExceeded,
	control.KindDenied:            codes.PermissionDenied,
	control.KindInternal:          codes.Internal,
	control.KindExpired:           codes.FailedPrecondition,
	control.KindUsed:              codes.FailedPrecondition,
	control.KindPinned:            codes.FailedPrecondition,
}

// statusOf is the gRPC status of a refusal: Internal for a kind that has none yet.
func statusOf(kind string) codes.Code {
	if c, ok := statuses[kind]; ok {
		return c
	}
	return codes.Internal
}

// short keeps what a refusal quotes of a request to a line.
func short(s string) string {
	if len(s) > 64 {
		s = s[:64] + "…"
	}
	return strings.ToValidUTF8(s, "�")
}
