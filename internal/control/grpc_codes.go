package control

import "google.golang.org/grpc/codes"

// statuses gives each code of a refusal its gRPC status. ErrorInfo carries the code itself.
var statuses = map[string]codes.Code{
	CodeNotFound:          codes.NotFound,
	CodeExists:            codes.AlreadyExists,
	CodeInvalid:           codes.InvalidArgument,
	CodeDisabled:          codes.FailedPrecondition,
	CodeLocked:            codes.ResourceExhausted,
	CodeCodeInvalid:       codes.Unauthenticated,
	CodeCodeUsed:          codes.Unauthenticated,
	CodeNotEnrolled:       codes.FailedPrecondition,
	CodeInvitationUnknown: codes.NotFound,
	CodeInvitationExpired: codes.FailedPrecondition,
	CodeInvitationUsed:    codes.FailedPrecondition,
	CodeOtherBrowser:      codes.FailedPrecondition,
	CodeKeyTaken:          codes.AlreadyExists,
	CodeFull:              codes.ResourceExhausted,
	CodeConflict:          codes.Aborted,
	CodeLimit:             codes.ResourceExhausted,
	CodeTooLarge:          codes.InvalidArgument,
	CodeClockBehind:       codes.FailedPrecondition,
	CodeNoLeader:          codes.Unavailable,
	CodeUnavailable:       codes.Unavailable,
	CodeCanceled:          codes.Canceled,
	CodeDenied:            codes.PermissionDenied,
	CodeInternal:          codes.Internal,
	CodeExpired:           codes.FailedPrecondition,
	CodeUsed:              codes.FailedPrecondition,
}

// statusOf is the gRPC status of a refusal: Internal for a code that has none yet.
func statusOf(code string) codes.Code {
	if c, ok := statuses[code]; ok {
		return c
	}
	return codes.Internal
}
