package peers

type kind uint16

// Kinds are append-only.
const (
	kindInit kind = iota + 1
	kindConfigureV1
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
	kindPolicyApplyV1
	kindNote
	kindTimeReset
	kindPolicyTryV1
	kindPolicyConfirm
	kindPolicyRevert
	kindUpgrade
	kindConfigure
	kindVaultPut
	kindVaultRemove
	kindVaultLock
	kindVaultUnlock
	kindSelfTestBegin
	kindSelfTestEnd
	kindPolicyApply
)

// kinds has every kind that was ever released: how its body is read, and the level of the
// state that it needs.
var kinds = map[kind]struct {
	decode func([]byte) (Body, error)
	level  uint64
}{
	kindInit:             {decodeBody[Init], levelFirst},
	kindConfigureV1:      {decodeBody[ConfigureV1], levelFirst},
	kindUserAdd:          {decodeBody[UserAdd], levelFirst},
	kindUserEnable:       {decodeBody[UserEnable], levelFirst},
	kindUserRemove:       {decodeBody[UserRemove], levelFirst},
	kindUserUnlock:       {decodeBody[UserUnlock], levelFirst},
	kindTOTPReset:        {decodeBody[TOTPReset], levelFirst},
	kindInvitationAdd:    {decodeBody[InvitationAdd], levelFirst},
	kindInvitationRemove: {decodeBody[InvitationRemove], levelFirst},
	kindEnrolBegin:       {decodeBody[EnrolBegin], levelFirst},
	kindEnrolFinish:      {decodeBody[EnrolFinish], levelFirst},
	kindDeviceAdd:        {decodeBody[DeviceAdd], levelFirst},
	kindDeviceEnable:     {decodeBody[DeviceEnable], levelFirst},
	kindDeviceRemove:     {decodeBody[DeviceRemove], levelFirst},
	kindDeviceRotate:     {decodeBody[DeviceRotate], levelFirst},
	kindLogin:            {decodeBody[Login], levelFirst},
	kindFailure:          {decodeBody[Failure], levelFirst},
	kindSessionEnd:       {decodeBody[SessionEnd], levelFirst},
	kindExpire:           {decodeBody[Expire], levelFirst},
	kindPolicyApplyV1:    {decodeBody[PolicyApplyV1], levelFirst},
	kindNote:             {decodeBody[Note], levelFirst},
	kindTimeReset:        {decodeBody[TimeReset], levelFirst},
	kindPolicyTryV1:      {decodeBody[PolicyTryV1], levelFirst},
	kindPolicyConfirm:    {decodeBody[PolicyConfirm], levelFirst},
	kindPolicyRevert:     {decodeBody[PolicyRevert], levelFirst},
	kindUpgrade:          {decodeBody[Upgrade], levelFirst},
	kindConfigure:        {decodeBody[Configure], levelAnswers},
	kindVaultPut:         {decodeBody[VaultPut], levelVault},
	kindVaultRemove:      {decodeBody[VaultRemove], levelVault},
	kindVaultLock:        {decodeBody[VaultLock], levelVault},
	kindVaultUnlock:      {decodeBody[VaultUnlock], levelVault},
	kindSelfTestBegin:    {decodeBody[SelfTestBegin], levelSelfTest},
	kindSelfTestEnd:      {decodeBody[SelfTestEnd], levelSelfTest},
	kindPolicyApply:      {decodeBody[PolicyApply], levelResources},
}

func decodeBody[B Body](raw []byte) (Body, error) {
	var b B
	err := decMode.Unmarshal(raw, &b)
	return b, err
}

func (Init) kind() kind             { return kindInit }
func (ConfigureV1) kind() kind      { return kindConfigureV1 }
func (UserAdd) kind() kind          { return kindUserAdd }
func (UserEnable) kind() kind       { return kindUserEnable }
func (UserRemove) kind() kind       { return kindUserRemove }
func (UserUnlock) kind() kind       { return kindUserUnlock }
func (TOTPReset) kind() kind        { return kindTOTPReset }
func (InvitationAdd) kind() kind    { return kindInvitationAdd }
func (InvitationRemove) kind() kind { return kindInvitationRemove }
func (EnrolBegin) kind() kind       { return kindEnrolBegin }
func (EnrolFinish) kind() kind      { return kindEnrolFinish }
func (DeviceAdd) kind() kind        { return kindDeviceAdd }
func (DeviceEnable) kind() kind     { return kindDeviceEnable }
func (DeviceRemove) kind() kind     { return kindDeviceRemove }
func (DeviceRotate) kind() kind     { return kindDeviceRotate }
func (Login) kind() kind            { return kindLogin }
func (Failure) kind() kind          { return kindFailure }
func (SessionEnd) kind() kind       { return kindSessionEnd }
func (Expire) kind() kind           { return kindExpire }
func (PolicyApplyV1) kind() kind    { return kindPolicyApplyV1 }
func (Note) kind() kind             { return kindNote }
func (TimeReset) kind() kind        { return kindTimeReset }
func (PolicyTryV1) kind() kind      { return kindPolicyTryV1 }
func (PolicyConfirm) kind() kind    { return kindPolicyConfirm }
func (PolicyRevert) kind() kind     { return kindPolicyRevert }
func (Upgrade) kind() kind          { return kindUpgrade }
func (Configure) kind() kind        { return kindConfigure }
func (VaultPut) kind() kind         { return kindVaultPut }
func (VaultRemove) kind() kind      { return kindVaultRemove }
func (VaultLock) kind() kind        { return kindVaultLock }
func (VaultUnlock) kind() kind      { return kindVaultUnlock }
func (SelfTestBegin) kind() kind    { return kindSelfTestBegin }
func (SelfTestEnd) kind() kind      { return kindSelfTestEnd }
func (PolicyApply) kind() kind      { return kindPolicyApply }
