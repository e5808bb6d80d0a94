package doctor

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	diskLeast   = 64 << 20 // bytes: a snapshot of 50,000 devices is written beside its former one
	diskWrites  = 3        // the fastest counts: others use the disk, too
	diskPatient = 200 * time.Millisecond
)

// Disk looks at the room of the folder at path, and how long sync takes there.
func Disk(path string, sync func(path string) error) (out []*Finding) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return []*Finding{find("disk_broken", "path", path, "why", err)}
	}
	free := st.Bavail * uint64(st.Bsize)
	if free < diskLeast || st.Files > 0 && st.Ffree < 16 {
		out = append(out, find("disk_full", "path", path, "free", bytes(free)))
	}
	best := time.Hour
	for range diskWrites {
		start := time.Now()
		if err := sync(path); err != nil {
			return append(out, find("disk_broken", "path", path, "why", err))
		}
		best = min(best, time.Since(start))
	}
	if best > diskPatient {
		return append(out, find("disk_slow", "path", path, "took", best.Round(time.Millisecond)))
	}
	if out == nil {
		out = append(out, find("disk_ok", "free", bytes(free), "took", best.Round(10*time.Microsecond)))
	}
	return out
}

// syncFile writes a block to a new file in the folder, as the log is written, and removes it.
func syncFile(dir string) error {
	f, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(make([]byte, 4096)); err != nil {
		return fmt.Errorf("writing %s: %w", filepath.Base(f.Name()), err)
	}
	return f.Sync()
}

func bytes(n uint64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d KiB", n>>10)
}
