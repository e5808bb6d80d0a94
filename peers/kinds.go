package peers

type kind uint16

// Kinds are append-only.
const (
	kindInit kind = iota + 1
	kindConfigure
	kindUserAdd
	kindUserEnable
	kindUserRemove
	kindUserUnlock
	kindTOTPReset
	kindInvitationAdd
	kindInvitationRemove
	kindEnrolBegin
	kindEnrolFinish
	kindDeviceAdd
	kindDeviceEnable
	kindDeviceRemove
	kindDeviceRotate
	kindLogin
	kindFailure
	kindSessionEnd
	kindExpire
	kindPolicyApply
	kindNote
	kindTimeReset
	kindPolicyTry
	kindPolicyConfirm
	kindPolicyRevert
)

// bodies has every kind that was ever released.
var bodies = map[kind]func([]byte) (Body, error){
	kindInit:             decodeBody[Init],
	kindConfigure:        decodeBody[Configure],
	kindUserAdd:          decodeBody[UserAdd],
	kindUserEnable:       decodeBody[UserEnable],
	kindUserRemove:       decodeBody[UserRemove],
	kindUserUnlock:       decodeBody[UserUnlock],
	kindTOTPReset:        decodeBody[TOTPReset],
	kindInvitationAdd:    decodeBody[InvitationAdd],
	kindInvitationRemove: decodeBody[InvitationRemove],
	kindEnrolBegin:       decodeBody[EnrolBegin],
	kindEnrolFinish:      decodeBody[EnrolFinish],
	kindDeviceAdd:        decodeBody[DeviceAdd],
	kindDeviceEnable:     decodeBody[DeviceEnable],
	kindDeviceRemove:     decodeBody[DeviceRemove],
	kindDeviceRotate:     decodeBody[DeviceRotate],
	kindLogin:            decodeBody[Login],
	kindFailure:          decodeBody[Failure],
	kindSessionEnd:       decodeBody[SessionEnd],
	kindExpire:           decodeBody[Expire],
	kindPolicyApply:      decodeBody[PolicyApply],
	kindNote:             decodeBody[Note],
	kindTimeReset:        decodeBody[TimeReset],
	kindPolicyTry:        decodeBody[PolicyTry],
	kindPolicyConfirm:    decodeBody[PolicyConfirm],
	kindPolicyRevert:     decodeBody[PolicyRevert],
}

func decodeBody[B Body](raw []byte) (Body, error) {
	var b B
	err := decMode.Unmarshal(raw, &b)
	return b, err
}

func (Init) kind() kind { return kindInit }

func (Configure) kind() kind { return kindConfigure }

func (UserAdd) kind() kind { return kindUserAdd }

func (UserEnable) kind() kind { return kindUserEnable }

func (UserRemove) kind() kind { return kindUserRemove }

func (UserUnlock) kind() kind { return kindUserUnlock }

func (TOTPReset) kind() kind { return kindTOTPReset }

func (InvitationAdd) kind() kind { return kindInvitationAdd }

func (InvitationRemove) kind() kind { return kindInvitationRemove }

func (EnrolBegin) kind() kind { return kindEnrolBegin }

func (EnrolFinish) kind() kind { return kindEnrolFinish }

func (DeviceAdd) kind() kind { return kindDeviceAdd }

func (DeviceEnable) kind() kind { return kindDeviceEnable }

func (DeviceRemove) kind() kind { return kindDeviceRemove }

func (DeviceRotate) kind() kind { return kindDeviceRotate }

func (Login) kind() kind { return kindLogin }

func (Failure) kind() kind { return kindFailure }

func (SessionEnd) kind() kind { return kindSessionEnd }

func (Expire) kind() kind { return kindExpire }

func (PolicyApply) kind() kind { return kindPolicyApply }

func (Note) kind() kind { return kindNote }

func (TimeReset) kind() kind { return kindTimeReset }

func (PolicyTry) kind() kind { return kindPolicyTry }

func (PolicyConfirm) kind() kind { return kindPolicyConfirm }

func (PolicyRevert) kind() kind { return kindPolicyRevert }
