package main

import (
	"fmt"

	vpnv1 "vpnd/proto/vpn/v1"
)

// closed tells which gateways have not closed what was to be closed. That is an error
// with an exit code of its own: the change itself stands.
func (a *app) closed(list []*vpnv1.Closed) error {
	open := 0
	for _, c := range list {
		if !c.Done {
			open++
			a.notef("gateway %s: %s", short(c.Gateway), c.Error)
		}
	}
	if open > 0 {
		return &exitError{exitNotClosed, fmt.Errorf("the change is recorded, but %d of %d gateways has not carried it out yet; it goes on trying, and every session ends on time in any case", open, len(list))}
	}
	return nil
}

// closedOn names the gateways that have closed it, for the end of a sentence.
func closedOn(list []*vpnv1.Closed) string {
	if names := doneOn(list); names != "" {
		return "; closed on " + names
	}
	return ""
}

// doneOn names the gateways that have carried a change out.
func doneOn(list []*vpnv1.Closed) string {
	var names []string
	for _, c := range list {
		if c.Done {
			names = append(names, short(c.Gateway))
		}
	}
	switch len(names) {
	case 0:
		return ""
	case 1:
		return "gateway " + names[0]
	}
	return fmt.Sprintf("%d gateways (%s)", len(names), joined(names))
}

// short is enough of a node id to tell nodes apart.
func short(node string) string {
	if len(node) > 8 {
		return node[:8]
	}
	return node
}
