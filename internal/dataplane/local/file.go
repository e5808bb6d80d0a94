package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// A file of targets has one on each line; lines that begin with # are for people.
const fileHead = "# What resources may lead to on this host, beside --local-targets. vpnctl resource add writes it.\n"

// ReadFile reads a file of targets. One that is not there has none.
func ReadFile(path string) ([]Target, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading what may be published on this host: %w", err)
	}
	var list []Target
	n := 0
	for line := range strings.Lines(string(b)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		t, err := ParseTarget(line)
		if err != nil {
			return nil, fmt.Errorf("%s, line %d: %w", path, n, err)
		}
		list = append(list, t)
	}
	return list, nil
}

// WriteFile writes a file of targets, for its owner alone: whole, or not at all.
func WriteFile(path string, list []Target) (err error) {
	text := fileHead
	for _, t := range list {
		text += t.String() + "\n"
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".targets-*") // 0600
	if err != nil {
		return fmt.Errorf("writing what may be published on this host: %w", err)
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
			err = fmt.Errorf("writing what may be published on this host: %w", err)
		}
	}()
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
