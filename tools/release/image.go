package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// uid is the user that the image's programs run as unless told otherwise: nobody's, as it
// needs no name on the host.
const uid = 65532

// repository is the image's name without its tag. It names no registry: podman would
// otherwise ask one, and call a bare name localhost's anyway.
const repository = "localhost/vpnd"

// image writes an OCI archive with an image for each architecture: the programs of its
// folder on an empty root, nothing else. The architectures are one image index under one
// name, so that podman, skopeo and containerd take the one that fits. Docker's own image
// store reads manifest.json instead, which knows no architectures: there, each has a tag.
func image(version string, at time.Time, out string, archs []string) error {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	var all []saved
	for _, a := range archs {
		arch, dir, ok := strings.Cut(a, "=")
		if !ok {
			return fmt.Errorf("%q is no ARCH=FOLDER", a)
		}
		img, platform, err := one(version, at, arch, dir)
		if err != nil {
			return fmt.Errorf("the image for %s: %w", arch, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: platform}})
		s, err := save(img, repository+":"+version+"-"+arch)
		if err != nil {
			return fmt.Errorf("the image for %s: %w", arch, err)
		}
		all = append(all, s)
	}
	top := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), mutate.IndexAddendum{Add: index, Descriptor: v1.Descriptor{
		Annotations: map[string]string{
			"org.opencontainers.image.ref.name": version,                    // the OCI layout's: a tag
			"io.containerd.image.name":          repository + ":" + version, // containerd's and podman's: the whole name
		},
	}})
	dir, err := os.MkdirTemp("", "vpnd-image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if _, err := layout.Write(dir, top); err != nil {
		return fmt.Errorf("laying the image out: %w", err)
	}
	b, err := json.Marshal(all)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "manifest.json"), b, 0o644); err != nil {
		return err
	}
	return pack(dir, at, out)
}

// saved is an image in the manifest.json of `docker save`; its paths are those of the OCI layout.
type saved struct {
	Config   string
	RepoTags []string
	Layers   []string
}

func save(img v1.Image, tag string) (saved, error) {
	m, err := img.Manifest()
	if err != nil {
		return saved{}, err
	}
	blob := func(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }
	s := saved{Config: blob(m.Config.Digest), RepoTags: []string{tag}}
	for _, l := range m.Layers {
		s.Layers = append(s.Layers, blob(l.Digest))
	}
	return s, nil
}

func one(version string, at time.Time, arch, dir string) (v1.Image, *v1.Platform, error) {
	platform := &v1.Platform{OS: "linux", Architecture: arch}
	if arch == "armv7" {
		platform.Architecture, platform.Variant = "arm", "v7"
	}
	files, err := root(at, dir)
	if err != nil {
		return nil, nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files)), nil },
		tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if img, err = mutate.Append(img, mutate.Addendum{Layer: layer, History: v1.History{Created: v1.Time{Time: at}, CreatedBy: "vpnd " + version}}); err != nil {
		return nil, nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Variant = platform.OS, platform.Architecture, platform.Variant
	config.Created = v1.Time{Time: at}
	config.Config = v1.Config{
		User:       fmt.Sprintf("%d:%d", uid, uid),
		Entrypoint: []string{"/usr/sbin/vpnd"},
		Env: []string{"PATH=/usr/sbin:/usr/bin", "VPND_DATA=/var/lib/vpnd", "VPND_SEALING_KEY=/etc/vpnd/sealing.key",
			"VPND_CONTROL=/run/vpnd/control.sock", "VPNCTL_SOCKET=/run/vpnd/control.sock", "VPND_APP=/run/vpnd-app/app.sock", "VPND_WHOIS_GROUP=" + fmt.Sprint(uid)},
		ExposedPorts: map[string]struct{}{"51820/udp": {}, "8443/tcp": {}},
		Volumes:      map[string]struct{}{"/var/lib/vpnd": {}, "/etc/vpnd": {}},
		Labels: map[string]string{"org.opencontainers.image.title": "vpnd", "org.opencontainers.image.version": version,
			"org.opencontainers.image.licenses": "Apache-2.0"},
	}
	img, err = mutate.ConfigFile(img, config)
	return img, platform, err
}

// root is the image's file system as a tar archive.
func root(at time.Time, dir string) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	folder := func(name string, mode int64, owner int) error {
		return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode, Uid: owner, Gid: owner, ModTime: at, Format: tar.FormatPAX})
	}
	for _, d := range []struct {
		name  string
		mode  int64
		owner int
	}{
		{"etc", 0o755, 0}, {"etc/vpnd", 0o700, uid}, {"run", 0o755, 0}, {"run/vpnd", 0o755, uid}, {"run/vpnd-app", 0o750, uid},
		{"run/wireguard", 0o755, uid}, {"tmp", 0o1777, 0}, {"usr", 0o755, 0}, {"usr/bin", 0o755, 0}, {"usr/sbin", 0o755, 0},
		{"var", 0o755, 0}, {"var/lib", 0o755, 0}, {"var/lib/vpnd", 0o700, uid}, {"var/lib/vpnd-app", 0o700, uid},
	} {
		if err := folder(d.name, d.mode, d.owner); err != nil {
			return nil, err
		}
	}
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "var/run", Linkname: "/run", Mode: 0o777, ModTime: at, Format: tar.FormatPAX}); err != nil {
		return nil, err
	}
	for _, to := range []string{"usr/bin/vpnctl", "usr/sbin/protected-app", "usr/sbin/vpnd"} {
		if err := file(w, at, filepath.Join(dir, filepath.Base(to)), to); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil { // writes the end, before b is read
		return nil, err
	}
	return b.Bytes(), nil
}

func file(w *tar.Writer, at time.Time, from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := w.WriteHeader(&tar.Header{Name: to, Mode: 0o755, Size: int64(len(b)), ModTime: at, Format: tar.FormatPAX}); err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

// pack makes one file of a folder, in order of names.
func pack(dir string, at time.Time, out string) error {
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	defer f.Close()
	w := tar.NewWriter(f)
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755, ModTime: at, Format: tar.FormatPAX})
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(b)), ModTime: at, Format: tar.FormatPAX}); err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	})
	if err != nil {
		return fmt.Errorf("packing the image: %w", err)
	}
	if err := w.Close(); err != nil {
		return err
	}
	return f.Close()
}
