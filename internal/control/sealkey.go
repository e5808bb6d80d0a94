package control

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"vpnd/internal/owner"
)

// ErrNoSealingKey means that there is state but no key to open its secrets.
var ErrNoSealingKey = errors.New("sealing key missing")

// LoadSealingKey reads the key that secrets are sealed with: one line of base64 in a file
// that belongs to root or this user and only its owner can read. Without any state it makes the file at the first start.
// Beside existing state it never makes another: no new key would open what the old one
// sealed.
func LoadSealingKey(path string, stateExists bool) ([]byte, error) {
	key, err := readSealingKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if owner.IsCredential(path) {
		return nil, fmt.Errorf("%w: systemd gave this service no credential %s: name its file with LoadCredential= in the unit", ErrNoSealingKey, filepath.Base(path))
	}
	if stateExists {
		return nil, fmt.Errorf("%w: there is no file %s, but the data folder holds secrets that only it opens; "+
			"put the file back from where you keep it (or name another place with --sealing-key)", ErrNoSealingKey, path)
	}
	if err := makeSealingKey(path); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("make the sealing key %s: %w (name another place with --sealing-key)", path, err)
	}
	return readSealingKey(path) // what is in the file counts, whoever made it
}

func readSealingKey(path string) ([]byte, error) {
	text, err := owner.Self().Read(path, "the sealing key", owner.Access{}, 256)
	if err != nil {
		return nil, err
	}
	line := strings.TrimSuffix(string(text), "\n")
	key, err := base64.StdEncoding.Strict().DecodeString(line)
	if err != nil || len(key) != sealKeySize || base64.StdEncoding.EncodeToString(key) != line {
		// The cause would quote the file's contents.
		return nil, fmt.Errorf("the sealing key %s is damaged: it must be one line, the base64 of %d bytes; "+
			"put it back from where you keep it", path, sealKeySize)
	}
	return key, nil
}

// makeSealingKey writes a new key beside its place and links it there: the file is whole
// or absent, and one that exists is never replaced (fs.ErrExist).
func makeSealingKey(path string) error {
	dir := filepath.Dir(path)
	if err := owner.Self().Above(path, "the sealing key", 0o700); err != nil {
		return err
	}
	key := make([]byte, sealKeySize)
	if _, err := rand.Read(key); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, ".sealing-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.WriteString(base64.StdEncoding.EncodeToString(key) + "\n")
	err = errors.Join(err, tmp.Sync(), tmp.Close())
	if err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
