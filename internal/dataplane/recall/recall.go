// Package recall keeps where WireGuard's peers were last heard from in a file of the data
// folder, so that the next process on this host can shake hands with them at once: a
// client itself would notice only after 15 s. The file holds addresses and public keys; it
// is nobody's affair but this host's, and does not go through Raft.
package recall

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"vpnd/internal/dataplane"
	"vpnd/internal/owner"
)

const (
	// life is how long a file is of use, and how long a peer may use the keys of a
	// handshake (REJECT_AFTER_TIME).
	life = 180 * time.Second
	// maxBehind is how far the clock may lie behind the file's: so long it is waited.
	maxBehind = 30 * time.Second
	// maxSize bounds the file: 65,536 peers take some 13 MB.
	maxSize = 32 << 20
	format  = 1
)

// file is what stands in the file, as JSON.
type file struct {
	Format  int       `json:"format"`
	Gateway key       `json:"gateway"` // the gateway's public key: whose peers these are
	Written time.Time `json:"written"`
	// Next is when the file is written again at the latest: no handshake of this process
	// bears a later time than that.
	Next  time.Time `json:"next"`
	Peers []peer    `json:"peers"` // those with traffic first
}

type peer struct {
	Key       key            `json:"key"`
	Endpoint  netip.AddrPort `json:"endpoint"`
	Local     netip.Addr     `json:"local"`
	Handshake time.Time      `json:"handshake"`
	// Heard is when bytes last came from it, as far as is known.
	Heard time.Time `json:"heard"`
}

// key is a public key, in the spelling of wg(8).
type key dataplane.Key

func (k key) MarshalText() ([]byte, error) { return base64.StdEncoding.AppendEncode(nil, k[:]), nil }

func (k *key) UnmarshalText(text []byte) error {
	b, err := base64.StdEncoding.DecodeString(string(text))
	if err == nil && len(b) != len(k) {
		err = fmt.Errorf("a key of %d bytes", len(b))
	}
	copy(k[:], b)
	return err
}

// Read reads the file at path for the gateway with this public key. It returns what a plane
// is to recall, and what a person should know: why the file is not used, or is used later.
func Read(path string, gateway dataplane.Key, now time.Time) (r dataplane.Recall, say string) {
	f, err := read(path)
	ignored := func(why string, args ...any) (dataplane.Recall, string) {
		return dataplane.Recall{}, fmt.Sprintf("%s is not used, so clients notice the restart after 15 s: %s", path, fmt.Sprintf(why, args...))
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return r, ""
	case err != nil:
		return ignored("%v", err)
	case dataplane.Key(f.Gateway) != gateway:
		return ignored("it is another gateway's")
	case now.Sub(f.Written) > life:
		return r, "" // long stopped: nobody waits any more
	case f.Written.Sub(now) > maxBehind:
		return ignored("the clock is %v behind the time at which it was written; clients refuse handshakes that are older than the last one", f.Written.Sub(now).Round(time.Second))
	}
	for _, p := range f.Peers {
		r.Peers = append(r.Peers, dataplane.Sighting{Key: dataplane.Key(p.Key), Endpoint: p.Endpoint, Local: p.Local})
	}
	if now.Before(f.Written) && len(r.Peers) > 0 {
		r.After = f.Next
		if most := now.Add(maxBehind); r.After.After(most) {
			r.After = most
		}
		say = fmt.Sprintf("the clock is %v behind that of the process before this one; clients refuse handshakes that are older than the last one, so they are shaken hands with in %v",
			f.Written.Sub(now).Round(time.Millisecond), r.After.Sub(now).Round(time.Millisecond))
	}
	return r, say
}

// read reads and checks the file.
func read(path string) (*file, error) {
	text, err := owner.Self().Read(path, "the list of endpoints", owner.Access{}, maxSize)
	if err != nil {
		return nil, err
	}
	var f file
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return nil, fmt.Errorf("it is damaged: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("it is damaged: more follows behind its end")
	}
	if f.Format != format {
		return nil, fmt.Errorf("its format %d is not known", f.Format)
	}
	for _, p := range f.Peers {
		if !p.Endpoint.IsValid() || p.Endpoint.Port() == 0 || p.Endpoint.Addr().IsUnspecified() {
			return nil, errors.New("it is damaged: an endpoint is no address")
		}
	}
	return &f, nil
}

// write puts f in the place of the file at path in one step. It is not forced to the disk:
// after a power failure it is too old, or damaged, and not used.
func (f *file) write(path string) error {
	text, err := json.Marshal(f)
	if err != nil {
		return err
	}
	t, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	_, err = t.Write(text)
	if err = errors.Join(err, t.Close()); err == nil {
		err = os.Rename(t.Name(), path)
	}
	if err != nil {
		os.Remove(t.Name())
	}
	return err
}
