// Package modules knows what the programs that are shipped are made of.
package modules

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// Module is a Go module in the version that is linked.
type Module struct {
	Path, Version string
	Dir           string // its source
	Sum           string // as in go.sum
}

// Programs are what is shipped for an operating system: the gateway is Linux's alone.
func Programs(goos string) []string {
	if goos != "linux" {
		return []string{"./cmd/vpnctl"}
	}
	return []string{"./cmd/vpnd", "./cmd/vpnctl", "./protected-app"}
}

// Linked lists, sorted by path, the modules of the programs on these platforms (GOOS/GOARCH),
// without our own.
func Linked(root string, platforms ...string) ([]Module, error) {
	all := map[string]Module{}
	for _, p := range platforms {
		goos, goarch, ok := strings.Cut(p, "/")
		if !ok {
			return nil, fmt.Errorf("%q is no GOOS/GOARCH", p)
		}
		c := exec.Command("go", append([]string{"list", "-deps", "-json=Module"}, Programs(goos)...)...)
		c.Dir = root
		c.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0", "GOFLAGS=")
		c.Stderr = os.Stderr
		out, err := c.Output()
		if err != nil {
			return nil, fmt.Errorf("listing what is linked on %s: %w", p, err)
		}
		if err := read(out, all); err != nil {
			return nil, err
		}
	}
	var list []Module
	for _, m := range all {
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b Module) int { return strings.Compare(a.Path, b.Path) })
	return list, nil
}

func read(out []byte, all map[string]Module) error {
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct{ Module *Module }
		switch err := d.Decode(&p); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("reading go list's answer: %w", err)
		}
		if p.Module != nil && p.Module.Version != "" { // ours has none
			all[p.Module.Path] = *p.Module
		}
	}
}
