package control

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vpnd/peers"
)

func TestSealer(t *testing.T) {
	s, err := NewSealer(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	alice, bob := peers.ID{1}, peers.ID{2}
	secret := []byte("a secret of some length")
	sealed, err := s.Seal(alice, fieldTOTP, secret)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(sealed, secret) {
		t.Fatal("sealed in clear")
	}
	if got, err := s.Open(alice, fieldTOTP, sealed); err != nil || !bytes.Equal(got, secret) {
		t.Fatalf("Open = %q, %v", got, err)
	}
	again, err := s.Seal(alice, fieldTOTP, secret)
	if err != nil || bytes.Equal(again, sealed) {
		t.Error("sealed twice to the same bytes")
	}
	if _, err := s.Open(bob, fieldTOTP, sealed); !errors.Is(err, ErrSealed) {
		t.Errorf("opened for another owner: %v", err)
	}
	if _, err := s.Open(alice, fieldPSK, sealed); !errors.Is(err, ErrSealed) {
		t.Errorf("opened as another field: %v", err)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := s.Open(alice, fieldTOTP, bad); !errors.Is(err, ErrSealed) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		if _, err := s.Open(alice, fieldTOTP, sealed[:i]); !errors.Is(err, ErrSealed) {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
	other, err := NewSealer(bytes.Repeat([]byte{2}, 32))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Open(alice, fieldTOTP, sealed); !errors.Is(err, ErrSealed) {
		t.Errorf("opened with another key: %v", err)
	}
	for _, n := range []int{0, 16, 31, 33} {
		if _, err := NewSealer(make([]byte, n)); err == nil {
			t.Errorf("a key of %d bytes was taken", n)
		}
	}
}

func TestLoadSealingKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "etc", "sealing.key")
	if _, err := LoadSealingKey(path, true); !errors.Is(err, ErrNoSealingKey) {
		t.Fatalf("beside existing state: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatal("a key was made beside existing state")
	}
	key, err := LoadSealingKey(path, false)
	if err != nil || len(key) != 32 || bytes.Equal(key, make([]byte, 32)) {
		t.Fatalf("first start: %d bytes, %v", len(key), err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 1 {
		t.Errorf("%d files in the key's folder", len(left))
	}
	for _, exists := range []bool{true, false} {
		if again, err := LoadSealingKey(path, exists); err != nil || !bytes.Equal(again, key) {
			t.Errorf("a later start with state %v: another key, or %v", exists, err)
		}
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o660, 0o610} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadSealingKey(path, true); err == nil || !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
	good := base64.StdEncoding.EncodeToString(key)
	for _, text := range []string{"", "\n", good[:43] + "\n", good + good, good + "\n\n", " " + good, good[:20] + "\n" + good[20:], strings.Repeat("A", 300)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := LoadSealingKey(path, false)
		if err == nil {
			t.Errorf("%d bytes of junk were taken for a key", len(text))
		} else if text != "" && strings.Contains(err.Error(), strings.TrimSpace(text)) && strings.TrimSpace(text) != "" {
			t.Errorf("the error quotes the key: %v", err)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadSealingKey(path, false); err == nil {
		t.Error("a folder was taken for a key")
	}
}

// A nonce that came twice would give away both values: of a million none does.
func TestMillionNonces(t *testing.T) {
	s, err := NewSealer(make([]byte, sealKeySize))
	if err != nil {
		t.Fatal(err)
	}
	const values, version, nonce = 1_000_000, 1, 12 // the last two in bytes
	seen := make(map[[nonce]byte]struct{}, values)
	for range values {
		sealed, err := s.Seal(peers.ID{1}, fieldPSK, []byte("the same secret each time"))
		if err != nil {
			t.Fatal(err)
		}
		seen[[nonce]byte(sealed[version:])] = struct{}{}
	}
	if len(seen) != values {
		t.Errorf("%d values have %d nonces", values, len(seen))
	}
}

// A million sealed values have a million nonces, and those looked at open.
func TestSealNeverRepeatsANonce(t *testing.T) {
	s, err := NewSealer(bytes.Repeat([]byte{1}, 32))
	if err != nil {
		t.Fatal(err)
	}
	const n = 1_000_000
	seen := make(map[[12]byte]struct{}, n)
	secret := []byte("s")
	for i := range n {
		sealed, err := s.Seal(peers.ID{1}, fieldPSK, secret)
		if err != nil {
			t.Fatal(err)
		}
		seen[[12]byte(sealed[1:])] = struct{}{}
		if i%1000 == 0 {
			if got, err := s.Open(peers.ID{1}, fieldPSK, sealed); err != nil || !bytes.Equal(got, secret) {
				t.Fatalf("value %d: %q, %v", i, got, err)
			}
		}
	}
	if len(seen) != n {
		t.Errorf("%d nonces in %d values", len(seen), n)
	}
}
