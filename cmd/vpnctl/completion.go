package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	posener "github.com/posener/complete"
	"github.com/willabides/kongplete"

	vpnv1 "vpnd/proto/vpn/v1"
)

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish."`
}

// Help is shown by --help.
func (completionCmd) Help() string {
	return `Add the output to your shell's start-up file, as in: vpnctl completion bash >> ~/.bashrc. Names of people and devices are completed too, when vpnd can be reached.`
}

// The shells run vpnctl itself, with the line so far in COMP_LINE.
var completions = map[string]string{
	"bash": "complete -C %[1]s vpnctl\n",
	"zsh":  "autoload -U +X bashcompinit && bashcompinit\ncomplete -C %[1]s vpnctl\n",
	"fish": `function __complete_vpnctl
    set -lx COMP_LINE (commandline -cp)
    test -z (commandline -ct)
    and set COMP_LINE "$COMP_LINE "
    %[1]s
end
complete -f -c vpnctl -a "(__complete_vpnctl)"
`,
}

func (c *completionCmd) Run(a *app) error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find vpnctl's own path: %w", err)
	}
	a.printf(completions[c.Shell], quote(exe))
	return nil
}

// quote makes s one word for bash, zsh and fish.
func quote(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// complete answers a shell that asks for completions; it says whether one did.
func complete(ctx context.Context, a *app, c *cli) (done bool) {
	if a.sys.getenv("COMP_LINE") == "" {
		return false
	}
	kongplete.Complete(a.parser,
		kongplete.WithExitFunc(func(int) { done = true }),
		kongplete.WithErrorHandler(func(err error) { a.notef("complete: %v", err) }),
		kongplete.WithPredictor("file", posener.PredictFiles("*")),
		kongplete.WithPredictor("format", posener.PredictSet("text", "json")),
		kongplete.WithPredictor("user", names(ctx, a, userNames)),
		kongplete.WithPredictor("device", names(ctx, a, deviceNames)),
		kongplete.WithPredictor("resource", names(ctx, a, resourceNames)),
		kongplete.WithPredictor("group", names(ctx, a, groupNames)))
	return done
}

// names predicts what the daemon says, if it says it at once: a shell that hangs at a
// tab is worse than one that knows no names.
func names(ctx context.Context, a *app, ask func(context.Context, *client) []string) posener.Predictor {
	return posener.PredictFunc(func(posener.Args) []string {
		ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		defer cancel()
		api := &client{path: socketPath("", a.sys)}
		defer api.close()
		var list []string
		for _, n := range ask(ctx, api) {
			if n = clean(n); quote(n) == n {
				list = append(list, n)
			}
		}
		return list
	})
}

func userNames(ctx context.Context, api *client) (list []string) {
	r, err := api.users().ListUsers(ctx, &vpnv1.ListUsersRequest{})
	if err != nil {
		return nil
	}
	for _, u := range r.Users {
		list = append(list, u.Name)
	}
	return list
}

func deviceNames(ctx context.Context, api *client) (list []string) {
	r, err := api.devices().ListDevices(ctx, &vpnv1.ListDevicesRequest{})
	if err != nil {
		return nil
	}
	for _, d := range r.Devices {
		list = append(list, d.Name)
	}
	return list
}

func groupNames(ctx context.Context, api *client) (list []string) {
	r, err := api.policy().ListGroups(ctx, &vpnv1.ListGroupsRequest{})
	if err != nil {
		return nil
	}
	for _, g := range r.Groups {
		list = append(list, strings.TrimPrefix(g.Name, "group:"))
	}
	return list
}

func resourceNames(ctx context.Context, api *client) (list []string) {
	r, err := api.policy().ListResources(ctx, &vpnv1.ListResourcesRequest{})
	if err != nil {
		return nil
	}
	for _, x := range r.Resources {
		list = append(list, x.Name)
	}
	return list
}
