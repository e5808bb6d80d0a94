package api

import (
	"fmt"

	"google.golang.org/grpc/codes"

	"vpnd/internal/control"
)

// statuses gives each code of a refusal its gRPC status. ErrorInfo carries the code itself.
var statuses = map[string]codes.Code{
	control.CodeNotFound:          codes.NotFound,
	control.CodeExists:            codes.AlreadyExists,
	control.CodeInvalid:           codes.InvalidArgument,
	control.CodeDisabled:          codes.FailedPrecondition,
	control.CodeLocked:            codes.ResourceExhausted,
	control.CodeCodeInvalid:       codes.Unauthenticated,
	control.CodeCodeUsed:          codes.Unauthenticated,
	control.CodeNotEnrolled:       codes.FailedPrecondition,
	control.CodeInvitationUnknown: codes.NotFound,
	control.CodeInvitationExpired: codes.FailedPrecondition,
	control.CodeInvitationUsed:    codes.FailedPrecondition,
	control.CodeOtherBrowser:      codes.FailedPrecondition,
	control.CodeKeyTaken:          codes.AlreadyExists,
	control.CodeFull:              codes.ResourceExhausted,
	control.CodeConflict:          codes.Aborted,
	control.CodeTooOld:            codes.Aborted,
	control.CodeLimit:             codes.ResourceExhausted,
	control.CodeTooLarge:          codes.InvalidArgument,
	control.CodeClockBehind:       codes.FailedPrecondition,
	control.CodeNoLeader:          codes.Unavailable,
	control.CodeUnavailable:       codes.Unavailable,
	control.CodeCanceled:          codes.Canceled,
	control.CodeDenied:            codes.PermissionDenied,
	control.CodeInternal:          codes.Internal,
	control.CodeExpired:           codes.FailedPrecondition,
	control.CodeUsed:              codes.FailedPrecondition,
	control.CodePinned:            codes.FailedPrecondition,
}

// statusOf is the gRPC status of a refusal: Internal for a code that has none yet.
func statusOf(code string) codes.Code {
	if c, ok := statuses[code]; ok {
		return c
	}
	return codes.Internal
}

// refuse makes a refusal of this edge's own, as control's are.
func refuse(code, format string, args ...any) *control.Error {
	return &control.Error{Code: code, Message: fmt.Sprintf(format, args...)}
}
