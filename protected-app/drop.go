package main

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"vpnd/internal/owner"
)

// drop keeps files in a folder. Each is a folder of its own, files/ID, with its content
// and a meta.json; it is made in tmp/ and renamed when all of it is on disk, so after a
// crash a file is whole or absent.
type drop struct {
	dir            string
	maxFile, quota int64 // bytes

	mu    sync.Mutex
	files map[string]meta // by id
	used  int64           // bytes, uploads under way included
	begun int             // uploads under way
}

// meta describes a file.
type meta struct {
	ID   string    `json:"id"`
	Name string    `json:"name"`
	Size int64     `json:"size"` // bytes
	By   string    `json:"by"`
	At   time.Time `json:"at"`
}

// What a drop refuses.
var (
	errNoFile   = errors.New("no such file")
	errNotYours = errors.New("another's file")
	errTooLarge = errors.New("file too large")
	errFull     = errors.New("no room")
	errBadName  = errors.New("not a name for a file")
)

func openDrop(dir string, maxFile, quota int64) (*drop, error) {
	if err := closeEmpty(dir); err != nil {
		return nil, err
	}
	if err := owner.Self().Folder(dir, "--data", 0o700); err != nil {
		return nil, fmt.Errorf("%w; or choose another folder that this user may write", err)
	}
	if err := owner.Self().CloseTree(dir, "--data"); err != nil {
		return nil, err
	}
	d := &drop{dir: dir, maxFile: maxFile, quota: quota, files: map[string]meta{}}
	for _, sub := range []string{"files", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o700); err != nil {
			return nil, fmt.Errorf("making --data %s: %w; choose a folder that this user may write", dir, err)
		}
	}
	// What a crash left behind was never acknowledged.
	left, err := os.ReadDir(filepath.Join(dir, "tmp"))
	if err != nil {
		return nil, fmt.Errorf("reading --data %s: %w", dir, err)
	}
	for _, e := range left {
		if err := os.RemoveAll(filepath.Join(dir, "tmp", e.Name())); err != nil {
			return nil, fmt.Errorf("removing an upload that broke off: %w", err)
		}
	}
	entries, err := os.ReadDir(filepath.Join(dir, "files"))
	if err != nil {
		return nil, fmt.Errorf("reading --data %s: %w", dir, err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, "files", e.Name(), "meta.json")
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading the description of a file: %w", err)
		}
		var m meta
		if err := json.Unmarshal(b, &m); err != nil || m.ID != e.Name() {
			return nil, fmt.Errorf("%s does not describe its file; move that folder away to start without it", path)
		}
		d.files[m.ID] = m
		d.used += m.Size
	}
	return d, nil
}

// closeEmpty closes to others a folder of ours that nothing is in yet, as a file system that was
// just mounted there (tmpfs comes with mode 1777). All else is for internal/owner to judge.
func closeEmpty(dir string) error {
	f, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil // what is missing is made, and what is no folder refused
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("looking at --data %s: %w", dir, err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if _, err := f.Readdirnames(1); err != io.EOF || !ok || int(st.Uid) != os.Geteuid() || info.Mode().Perm()&0o022 == 0 {
		return nil
	}
	if err := f.Chmod(0o700); err != nil {
		return fmt.Errorf("closing --data %s to others: %w", dir, err)
	}
	return nil
}

// list gives all files, newest first.
func (d *drop) list() []meta {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]meta, 0, len(d.files))
	for _, m := range d.files {
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b meta) int {
		if c := b.At.Compare(a.At); c != 0 {
			return c
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out
}

// maxName is what a file system takes for a name, in bytes (NAME_MAX of limits.h).
const maxName = 255

// reorder are the characters that show a text in another order than it has: embeddings and
// overrides, isolates (UAX #9). Marks and joiners, as U+200C to U+200F, are in ordinary names of
// many scripts.
var reorder = &unicode.RangeTable{R16: []unicode.Range16{{Lo: 0x202a, Hi: 0x202e, Stride: 1}, {Lo: 0x2066, Hi: 0x2069, Stride: 1}}}

// checkName refuses what has no place in a header, a page or a terminal. A path is never
// made of it.
func checkName(name string) error {
	if name == "" || len(name) > maxName || name == "." || name == ".." || !utf8.ValidString(name) {
		return errBadName
	}
	for _, r := range name {
		if r == '/' || r == '\\' || unicode.In(r, unicode.Cc, unicode.Zl, unicode.Zp, reorder) {
			return errBadName
		}
	}
	return nil
}

// put stores what r gives. size is its length in bytes, -1 if unknown. The file is on
// disk when put returns.
func (d *drop) put(name, by string, size int64, r io.Reader, now time.Time) (meta, error) {
	if err := checkName(name); err != nil {
		return meta{}, err
	}
	if size > d.maxFile {
		return meta{}, errTooLarge
	}
	if !d.begin() {
		return meta{}, errFull
	}
	defer d.end()
	m := meta{ID: newID(), Name: name, By: by, At: now.UTC().Truncate(time.Millisecond)}
	tmp := filepath.Join(d.dir, "tmp", m.ID)
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return meta{}, fmt.Errorf("making room: %w", err)
	}
	kept := false
	reserve := &reservation{drop: d}
	defer func() {
		if !kept {
			os.RemoveAll(tmp)
			reserve.release()
		}
	}()
	n, err := writeFile(filepath.Join(tmp, "content"), io.TeeReader(io.LimitReader(r, d.maxFile+1), reserve))
	if err != nil {
		return meta{}, err
	}
	if n > d.maxFile {
		return meta{}, errTooLarge
	}
	if size >= 0 && n != size {
		return meta{}, io.ErrUnexpectedEOF
	}
	m.Size = n
	b, err := json.Marshal(m)
	if err != nil {
		return meta{}, err
	}
	if _, err := writeFile(filepath.Join(tmp, "meta.json"), strings.NewReader(string(b))); err != nil {
		return meta{}, err
	}
	if err := syncDir(tmp); err != nil {
		return meta{}, err
	}
	if err := os.Rename(tmp, filepath.Join(d.dir, "files", m.ID)); err != nil {
		return meta{}, fmt.Errorf("keeping the file: %w", err)
	}
	kept = true
	d.mu.Lock()
	d.files[m.ID] = m
	d.mu.Unlock()
	return m, syncDir(filepath.Join(d.dir, "files"))
}

// maxFiles bounds the files: the quota does not bound empty ones, and each costs memory
// and three inodes.
const maxFiles = 10_000

// begin admits one more upload.
func (d *drop) begin() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.files)+d.begun >= maxFiles {
		return false
	}
	d.begun++
	return true
}

func (d *drop) end() {
	d.mu.Lock()
	d.begun--
	d.mu.Unlock()
}

// reservation counts the bytes of one upload against the quota while they arrive, so
// that parallel uploads cannot pass it together.
type reservation struct {
	drop *drop
	n    int64
}

func (r *reservation) Write(p []byte) (int, error) {
	r.drop.mu.Lock()
	defer r.drop.mu.Unlock()
	if r.drop.used+int64(len(p)) > r.drop.quota {
		return 0, errFull
	}
	r.drop.used += int64(len(p))
	r.n += int64(len(p))
	return len(p), nil
}

func (r *reservation) release() {
	r.drop.mu.Lock()
	r.drop.used -= r.n
	r.drop.mu.Unlock()
}

// open gives a file's description and content.
func (d *drop) open(id string) (meta, *os.File, error) {
	d.mu.Lock()
	m, ok := d.files[id]
	d.mu.Unlock()
	if !ok {
		return meta{}, nil, errNoFile
	}
	f, err := os.Open(filepath.Join(d.dir, "files", m.ID, "content"))
	if errors.Is(err, os.ErrNotExist) {
		err = errNoFile // deleted a moment ago
	}
	return m, f, err
}

// remove deletes a file of by's.
func (d *drop) remove(id, by string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	m, ok := d.files[id]
	if !ok {
		return errNoFile
	}
	if m.By != by {
		return errNotYours
	}
	// Out of the list by one rename first: a crash in the middle of RemoveAll would
	// leave half a file.
	gone := filepath.Join(d.dir, "tmp", id)
	if err := os.Rename(filepath.Join(d.dir, "files", id), gone); err != nil {
		return fmt.Errorf("deleting the file: %w", err)
	}
	delete(d.files, id)
	d.used -= m.Size
	if err := syncDir(filepath.Join(d.dir, "files")); err != nil {
		return err
	}
	return os.RemoveAll(gone)
}

func newID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// writeFile makes path from r and returns when it is on disk.
func writeFile(path string, r io.Reader) (int64, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, fmt.Errorf("storing: %w", err)
	}
	n, err := io.Copy(f, r)
	if err == nil {
		err = f.Sync()
	}
	return n, errors.Join(err, f.Close())
}

// syncDir makes the names in a folder durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("storing: %w", err)
	}
	return errors.Join(f.Sync(), f.Close())
}
