// Package netstack is the data plane for any user: wireguard-go on gVisor's network
// stack, inside the process, without a TUN device and without a privilege.
//
// It owns the WireGuard device, the stack, the table of flows and the sockets that
// are dialled for them. It decides nothing: every packet from or to a device is judged
// by the rules.Ruleset, in both directions, before the stack or another device sees it.
//
//	device ⇄ WireGuard ⇄ filter ⇄ stack ⇄ splice ⇄ host socket ⇄ resource
//	                        ⇅
//	                  other devices
//
// A flow is what one permitted first packet began. It belongs to the sign-in (the
// chain of codes) that opened it and dies with it; a later code does not revive it.
//
// A flow to a service address is judged by that address and dialled to the published
// resource's target by package relay, which alone may call what is on this host.
//
// What a device is answered:
//
//   - TCP to port 80 of the gateway's tunnel addresses reaches the portal, always.
//   - TCP to port 80 of anything, and to the app's port on the gateway, reaches the
//     portal too while the device has no session.
//   - An ICMP echo to the gateway is answered when the policy grants it, as for
//     any host: the default policy grants tcp:8080 alone, and so refuses it.
//   - What is refused gets a TCP reset or ICMP "administratively prohibited", at a
//     limited rate.
//
// It cannot carry flows that begin at a resource: the host has no route to the devices.
package netstack
