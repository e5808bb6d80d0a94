package linux

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// sysctls changes sysctls and remembers what they were, in a file, so that a vpnd that
// was killed and started again still puts back the values from before its first start.
// Keys are paths below root: "net/ipv4/conf/eth0/forwarding".
type sysctls struct {
	root  string // "/proc/sys"
	file  string
	saved map[string]savedSysctl
}

type savedSysctl struct {
	Was  string `json:"was"`
	Ours string `json:"ours"`
}

// openSysctls reads what an earlier vpnd has noted down in this network namespace since
// the host was booted. It changes nothing.
func openSysctls(root, dir string) (*sysctls, error) {
	boot, err := os.ReadFile(filepath.Join(root, "kernel/random/boot_id"))
	if err != nil {
		return nil, fmt.Errorf("reading the boot id: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/net", &st); err != nil {
		return nil, fmt.Errorf("finding the network namespace: %w", err)
	}
	s := &sysctls{root: root, saved: map[string]savedSysctl{}}
	s.file = filepath.Join(dir, fmt.Sprintf("sysctl-%.8s-%d.json", strings.TrimSpace(string(boot)), st.Ino))
	b, err := os.ReadFile(s.file)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &s.saved)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the sysctls' former values: %w; remove the file when they are as they should be", err)
	}
	return s, nil
}

func (s *sysctls) get(key string) (string, error) {
	b, err := os.ReadFile(filepath.Join(s.root, key))
	return strings.TrimSpace(string(b)), err
}

// put writes a sysctl without noting anything down: for our own interface, which takes
// its sysctls with it. It says whether the value was another one.
func (s *sysctls) put(key, value string) (changed bool, err error) {
	was, err := s.get(key)
	if err != nil {
		return false, fmt.Errorf("reading sysctl %s: %w", dotted(key), err)
	}
	if was == value {
		return false, nil
	}
	if err := os.WriteFile(filepath.Join(s.root, key), []byte(value), 0); err != nil {
		return false, fmt.Errorf("setting sysctl %s to %s: %w; make /proc/sys writable, or run with --plane netstack", dotted(key), value, err)
	}
	return true, nil
}

// change writes a sysctl of the host's, after noting down what it was before vpnd.
func (s *sysctls) change(key, value string) (changed bool, err error) {
	if err := s.note(key, value); err != nil {
		return false, err
	}
	return s.put(key, value)
}

// note notes down what the sysctl is, if it is not value and not noted down already.
func (s *sysctls) note(key, value string) error {
	if _, ok := s.saved[key]; ok {
		return nil
	}
	was, err := s.get(key)
	if err != nil {
		return fmt.Errorf("reading sysctl %s: %w", dotted(key), err)
	}
	if was == value {
		return nil
	}
	s.saved[key] = savedSysctl{Was: was, Ours: value}
	return s.save()
}

// noteAs notes down was, to be put back if the sysctl is ours at the end.
func (s *sysctls) noteAs(key, was, ours string) error {
	if _, ok := s.saved[key]; ok {
		return nil
	}
	s.saved[key] = savedSysctl{Was: was, Ours: ours}
	return s.save()
}

// giveBack restores one sysctl, if it is still ours, and forgets it.
func (s *sysctls) giveBack(key string) error {
	v, ok := s.saved[key]
	if !ok {
		return nil
	}
	now, err := s.get(key)
	if err == nil && now == v.Ours {
		_, err = s.put(key, v.Was)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return s.forget(key)
}

// keys are the changed sysctls that match a pattern of path.Match, sorted; "*" is all.
func (s *sysctls) keys(pattern string) []string {
	var out []string
	for k := range s.saved {
		if ok, _ := path.Match(pattern, k); ok || pattern == "*" {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

// interfaces6 are those that have IPv6 sysctls, and "default", without "all".
func (s *sysctls) interfaces6() ([]string, error) {
	dir, err := os.ReadDir(filepath.Join(s.root, "net/ipv6/conf"))
	if err != nil {
		return nil, fmt.Errorf("listing the interfaces' sysctls: %w", err)
	}
	var out []string
	for _, d := range dir {
		if d.Name() != "all" {
			out = append(out, d.Name())
		}
	}
	return out, nil
}

// forget leaves a sysctl as it is for good: it is what its owner wants now.
func (s *sysctls) forget(key string) error {
	if _, ok := s.saved[key]; !ok {
		return nil
	}
	delete(s.saved, key)
	return s.save()
}

// was is the value before vpnd, where vpnd has changed it.
func (s *sysctls) was(key string) (string, bool) {
	v, ok := s.saved[key]
	return v.Was, ok
}

// restore puts back every value that is still ours; what somebody has set to something
// else meanwhile stays. Whole-host switches come first, since they reset the others.
func (s *sysctls) restore() error {
	keys := make([]string, 0, len(s.saved))
	for k := range s.saved {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		if x, y := strings.Contains(a, "/conf/all/"), strings.Contains(b, "/conf/all/"); x != y {
			if x {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	// Read all before writing any: the first writes may change what the others are.
	now := map[string]string{}
	var errs []error
	for _, k := range keys {
		v, err := s.get(k)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // an interface that went took it along
			errs = append(errs, fmt.Errorf("reading sysctl %s: %w", dotted(k), err))
		}
		now[k] = v
	}
	for _, k := range keys {
		if v := s.saved[k]; now[k] == v.Ours {
			if _, err := s.put(k, v.Was); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	if len(errs) == 0 {
		clear(s.saved)
		if err := os.Remove(s.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// save writes the file whole or not at all, and before the sysctl is changed.
func (s *sysctls) save() error {
	b, err := json.MarshalIndent(s.saved, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(s.file), 0o755); err != nil {
		return fmt.Errorf("making the folder for the sysctls' former values: %w", err)
	}
	tmp := s.file + ".new"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("noting down the sysctls' former values: %w", err)
	}
	if err := os.Rename(tmp, s.file); err != nil {
		return fmt.Errorf("noting down the sysctls' former values: %w", err)
	}
	return nil
}

// dotted gives a key as sysctl(8) prints it: a dot in an interface's name becomes a slash.
func dotted(key string) string {
	return strings.Map(func(r rune) rune {
		switch r {
		case '/':
			return '.'
		case '.':
			return '/'
		}
		return r
	}, key)
}
