package api

import (
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionalpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"

	vpnv1 "vpnd/proto/vpn/v1"
)

// role is what a caller is, by the socket and the uid that it came with.
type role uint8

const (
	roleAdmin   role = 1 << iota // control.sock: the daemon's own uid, or root
	roleService                  // whois.sock: a protected service
)

// roles is a set of them; the empty one allows nobody.
type roles uint8

func (r roles) has(one role) bool { return one != 0 && roles(one)&r != 0 }

const (
	admins = roles(roleAdmin)
	anyone = roles(roleAdmin | roleService)
)

// allowed is who may call what. A method that is not here is for nobody.
var allowed = map[string]roles{
	vpnv1.UserService_AddUser_FullMethodName:        admins,
	vpnv1.UserService_ListUsers_FullMethodName:      admins,
	vpnv1.UserService_GetUser_FullMethodName:        admins,
	vpnv1.UserService_SetUserEnabled_FullMethodName: admins,
	vpnv1.UserService_RemoveUser_FullMethodName:     admins,
	vpnv1.UserService_UnlockUser_FullMethodName:     admins,
	vpnv1.UserService_ResetTotp_FullMethodName:      admins,
	vpnv1.UserService_InviteUser_FullMethodName:     admins,

	vpnv1.DeviceService_AddDevice_FullMethodName:        admins,
	vpnv1.DeviceService_ListDevices_FullMethodName:      admins,
	vpnv1.DeviceService_GetDevice_FullMethodName:        admins,
	vpnv1.DeviceService_SetDeviceEnabled_FullMethodName: admins,
	vpnv1.DeviceService_RemoveDevice_FullMethodName:     admins,
	vpnv1.DeviceService_RotateDevice_FullMethodName:     admins,

	vpnv1.SessionService_ListSessions_FullMethodName: admins,
	vpnv1.SessionService_EndSessions_FullMethodName:  admins,

	vpnv1.PolicyService_GetPolicy_FullMethodName:     admins,
	vpnv1.PolicyService_CheckPolicy_FullMethodName:   admins,
	vpnv1.PolicyService_ApplyPolicy_FullMethodName:   admins,
	vpnv1.PolicyService_ConfirmPolicy_FullMethodName: admins,
	vpnv1.PolicyService_RevertPolicy_FullMethodName:  admins,
	vpnv1.PolicyService_ListPolicies_FullMethodName:  admins,
	vpnv1.PolicyService_DiffPolicy_FullMethodName:    admins,
	vpnv1.PolicyService_ExplainPolicy_FullMethodName: admins,
	vpnv1.PolicyService_ListGroups_FullMethodName:    admins,

	vpnv1.PolicyService_ListResources_FullMethodName:     admins,
	vpnv1.PolicyService_CheckResource_FullMethodName:     admins,
	vpnv1.PolicyService_AllowLocalTargets_FullMethodName: admins,

	vpnv1.GatewayService_GetStatus_FullMethodName:   admins,
	vpnv1.GatewayService_ListAudit_FullMethodName:   admins,
	vpnv1.GatewayService_SetSettings_FullMethodName: admins,
	vpnv1.GatewayService_ResetTime_FullMethodName:   admins,
	vpnv1.GatewayService_Diagnose_FullMethodName:    admins,

	vpnv1.WhoIsService_WhoIs_FullMethodName: anyone,

	healthpb.Health_Check_FullMethodName: admins,
	healthpb.Health_List_FullMethodName:  admins,
	healthpb.Health_Watch_FullMethodName: admins,

	reflectionpb.ServerReflection_ServerReflectionInfo_FullMethodName:    admins,
	reflectionalpha.ServerReflection_ServerReflectionInfo_FullMethodName: admins,
}
