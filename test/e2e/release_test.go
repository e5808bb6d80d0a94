package e2e

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// descriptor points at a blob of an OCI archive (image-spec, descriptor.md).
type descriptor struct {
	Digest      string
	Annotations map[string]string
	Platform    struct{ Architecture string }
}

// archive is an OCI archive's files by name.
type archive struct {
	t     *testing.T
	files map[string][]byte
}

func openArchive(t *testing.T) archive {
	t.Helper()
	found, err := filepath.Glob(project(t, "dist/vpnd-*-oci.tar"))
	if err != nil || len(found) != 1 {
		t.Fatalf("want one image in dist, found %q (%v): packaging/release image builds it", found, err)
	}
	f, err := os.Open(found[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	a := archive{t, map[string][]byte{}}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if err == io.EOF {
			return a
		}
		if err != nil {
			t.Fatal(err)
		}
		if a.files[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
}

// blob is the path of a descriptor's content.
func blob(d descriptor) string { return "blobs/" + strings.Replace(d.Digest, ":", "/", 1) }

func (a archive) read(name string, into any) {
	a.t.Helper()
	if err := json.Unmarshal(a.files[name], into); err != nil {
		a.t.Fatalf("%s: %v", name, err)
	}
}

// The container image runs as it is, without any privilege: one name, this machine's
// architecture in its index, vpnd on netstack as a user that no one is.
func TestImage(t *testing.T) {
	t.Parallel()
	a := openArchive(t)
	var top, index struct{ Manifests []descriptor }
	a.read("index.json", &top)
	if len(top.Manifests) != 1 || !strings.HasPrefix(top.Manifests[0].Annotations["io.containerd.image.name"], "localhost/vpnd:") {
		t.Fatalf("the archive is not one image with a name: %+v", top.Manifests)
	}
	a.read(blob(top.Manifests[0]), &index)
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	for _, m := range index.Manifests {
		if m.Platform.Architecture == runtime.GOARCH {
			a.read(blob(m), &manifest)
		}
	}
	if len(manifest.Layers) == 0 {
		t.Fatalf("nothing for %s in %+v", runtime.GOARCH, index.Manifests)
	}
	// What Docker's own store reads names the same blobs.
	var saved []struct {
		Config string
		Layers []string
	}
	a.read("manifest.json", &saved)
	if len(saved) != len(index.Manifests) {
		t.Errorf("%d images for docker load, want %d", len(saved), len(index.Manifests))
	}
	for _, s := range saved {
		for _, name := range append(s.Layers, s.Config) {
			if len(a.files[name]) == 0 {
				t.Errorf("manifest.json names %s, which is not there", name)
			}
		}
	}
	var config struct {
		Config struct {
			User       string
			Entrypoint []string
			Env        []string
		}
	}
	a.read(blob(manifest.Config), &config)
	if config.Config.User != "65532:65532" {
		t.Errorf("the image runs as %q", config.Config.User)
	}

	// An OCI bundle of it, as an engine makes one; nspawn runs these.
	dir, err := os.MkdirTemp(project(t, ".run"), "image-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	root := filepath.Join(dir, "rootfs")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, l := range manifest.Layers {
		unpack(t, a.files[blob(l)], root)
	}
	type object = map[string]any
	none := []string{}
	bundle, err := json.Marshal(object{
		"ociVersion": "1.0.0",
		"hostname":   "vpnd",
		"root":       object{"path": "rootfs", "readonly": false},
		"process": object{
			"user": object{"uid": 65532, "gid": 65532},
			"cwd":  "/",
			"args": config.Config.Entrypoint,
			"env":  append(config.Config.Env, "VPND_PLANE=netstack", "VPND_ENDPOINT=192.0.2.1:51820"),
			"capabilities": object{"bounding": none, "effective": none, "inheritable": none,
				"permitted": none, "ambient": none},
			"noNewPrivileges": true,
		},
		"mounts": []object{
			{"destination": "/proc", "type": "proc", "source": "proc"},
			{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": []string{"nosuid", "mode=755"}},
			// Engines and nspawn lay a /run of their own over the image's; vpnd.container does this.
			{"destination": "/run/vpnd", "type": "tmpfs", "source": "tmpfs", "options": []string{"nosuid", "mode=755", "uid=65532", "gid=65532"}},
		},
		"linux": object{"namespaces": []object{{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "network"}, {"type": "cgroup"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), bundle, 0o644); err != nil {
		t.Fatal(err)
	}
	p := launch(t, "image", exec.Command("systemd-nspawn", "-q", "--oci-bundle="+dir, "--register=no", "--keep-unit",
		"--machine=image", "--console=pipe", "--link-journal=no"))
	var pid int
	eventually(t, 30*time.Second, "vpnctl status in the image answers", func() error {
		select {
		case <-p.done:
			t.Fatalf("the image has ended:\n%s", tail(p.log.String(), 3000))
		default:
		}
		out, err := exec.Command("pgrep", "-P", fmt.Sprint(p.cmd.Process.Pid)).Output()
		if err != nil {
			return fmt.Errorf("not started: %w", err)
		}
		if _, err := fmt.Sscan(string(out), &pid); err != nil {
			return err
		}
		c := exec.Command("nsenter", "-t", fmt.Sprint(pid), "-a", "--setuid", "65532", "--setgid", "65532", "/usr/bin/vpnctl", "status")
		c.Dir, c.Env = "/", config.Config.Env
		status, err := c.CombinedOutput()
		if err != nil || !strings.Contains(string(status), "\nplane         netstack\n") {
			return fmt.Errorf("%v: %s\n%s", err, status, tail(p.log.String(), 2000))
		}
		return nil
	})
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"Name:\tvpnd\n", "Uid:\t65532\t65532\t65532\t65532\n", "CapEff:\t0000000000000000\n", "CapBnd:\t0000000000000000\n"} {
		if !strings.Contains(string(status), line) {
			t.Errorf("the image's process is another than %q:\n%s", line, status)
		}
	}
}

// unpack lays a layer out.
func unpack(t *testing.T, layer []byte, root string) {
	t.Helper()
	z, err := gzip.NewReader(strings.NewReader(string(layer)))
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command("tar", "-x", "-p", "--numeric-owner", "-C", root)
	c.Stdin = z
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("unpacking a layer: %v\n%s", err, out)
	}
}
