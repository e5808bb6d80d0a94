package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"
)

// podman is Debian's engine in a host: with storage of its own, and what a machine that is itself
// a container lets it do.
type podman struct {
	*host
	dir  string
	main *process // in whose mounts the engine works
}

// newPodman loads the image that packaging/release has built and gives its version.
func newPodman(t *testing.T, h *host) (p *podman, version string) {
	t.Helper()
	image, err := filepath.Glob(project(t, "dist/vpnd-*-oci.tar"))
	if err != nil || len(image) != 1 {
		t.Fatalf("want one image in dist, found %q (%v): packaging/release image builds it", image, err)
	}
	dir, err := os.MkdirTemp(project(t, ".run"), "podman-")
	if err != nil {
		t.Fatal(err)
	}
	p = &podman{host: h, dir: dir}
	t.Cleanup(func() { os.RemoveAll(dir) })
	for name, text := range map[string]string{
		"storage.conf": fmt.Sprintf("[storage]\ndriver=\"vfs\"\ngraphroot=\"%[1]s/root\"\nrunroot=\"%[1]s/run\"\n", dir),
		"containers.conf": fmt.Sprintf("[containers]\ndefault_ulimits=[\"nofile=4096:4096\",\"nproc=1000:1000\"]\ncgroups=\"disabled\"\n"+
			"[engine]\ncgroup_manager=\"cgroupfs\"\nevents_logger=\"file\"\n[network]\nnetwork_config_dir=\"%s/net\"\n", dir),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// crun wants cgroups of the second kind alone, and ip netns exec gives a /sys without any.
	p.main = h.start(nil, "sh", "-c", "mount -t cgroup2 none /sys/fs/cgroup && mkdir -p /run/netns && mount -t tmpfs none /run/netns && exec sleep 600")
	eventually(t, 5*time.Second, "the engine's mounts are there", func() error {
		_, err := p.try("test", "-e", "/sys/fs/cgroup/cgroup.procs")
		return err
	})
	out := p.run("podman", "load", "-q", "-i", image[0])
	_, version, ok := strings.Cut(strings.TrimSpace(out), "localhost/vpnd:")
	if !ok {
		t.Fatalf("podman load says %q, and no name", out)
	}
	return p, version
}

// try runs a command where the engine works, in its folder.
func (p *podman) try(args ...string) (string, error) {
	in := []string{"nsenter", "-t", fmt.Sprint(p.main.cmd.Process.Pid), "-m", "-n", "env", "-C", p.dir,
		"CONTAINERS_STORAGE_CONF=" + p.dir + "/storage.conf", "CONTAINERS_CONF=" + p.dir + "/containers.conf"}
	return p.host.try(append(in, args...)...)
}

func (p *podman) run(args ...string) string {
	p.t.Helper()
	out, err := p.try(args...)
	if err != nil {
		p.t.Fatalf("%v\n%s", err, tail(out, 4000))
	}
	return out
}

// composeGuide is what docs/install.md says to type.
const composeGuide = `podman load -i vpnd-*-oci.tar          # prints the name, localhost/vpnd:VERSION
export VPND_VERSION=VERSION VPND_ENDPOINT=vpn.example.com:51820
podman-compose -p vpnd up -d
podman exec vpnd_vpnd_1 vpnctl user add alice`

// packaging's compose.yaml, as it is, brings up vpnd and the file drop without any privilege; a person
// from outside enrols, signs in and reaches the drop.
func TestCompose(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "netstack")
	p, version := newPodman(t, w.gw)
	must(t, "sh", "-c", fmt.Sprintf("cp %s %s %s", project(t, "packaging/container/compose.yaml"), project(t, "dist/vpnd-*-oci.tar"), p.dir))
	t.Cleanup(func() {
		if t.Failed() {
			for _, c := range []string{"vpnd_vpnd_1", "vpnd_app_1"} {
				out, err := p.try("sh", "-c", "podman logs "+c+" 2>&1")
				t.Logf("%s:\n%s %v", c, out, err)
			}
		}
		p.try("podman", "rm", "-f", "-t", "2", "-a")
	})
	invited := p.run("sh", "-ec", strings.NewReplacer("=VERSION", "="+version, "vpn.example.com", gwPublic4).Replace(composeGuide))
	if !strings.Contains(invited, "https://"+gwPublic4+":8443/enroll#") {
		t.Errorf("no link in %s", invited)
	}
	w.ctl = func(args ...string) string {
		return p.run(append([]string{"podman", "exec", "vpnd_vpnd_1", "vpnctl"}, args...)...)
	}
	eventually(t, 20*time.Second, "vpnd answers", func() error {
		_, err := p.try("podman", "exec", "vpnd_vpnd_1", "vpnctl", "status")
		return err
	})
	for _, c := range []string{"vpnd_vpnd_1", "vpnd_app_1"} {
		pid := strings.TrimSpace(p.run("podman", "inspect", "-f", "{{.State.Pid}}", c))
		status := p.run("cat", "/proc/"+pid+"/status")
		for _, want := range []string{"CapEff:\t0000000000000000\n", "CapBnd:\t0000000000000000\n", "NoNewPrivs:\t1\n", "Uid:\t65532\t65532\t65532\t65532\n"} {
			if !strings.Contains(status, want) {
				t.Errorf("%s is not %q:\n%s", c, want, status)
			}
		}
	}
	bob := w.person("bob", "phone")
	bob.signIn()
	whoami := func(when string) {
		t.Helper()
		eventually(t, 30*time.Second, "the file drop knows who is calling "+when, func() error {
			status, body, _, err := bob.get(app + "/api/whoami")
			if err != nil || status != 200 || !strings.Contains(body, "bob") {
				return fmt.Errorf("%d %s %v", status, body, err)
			}
			return nil
		})
	}
	whoami("")
	p.run("podman", "restart", "-t", "5", "vpnd_vpnd_1")
	whoami("after a restart, with the state in its volume")
}

// packaging's Quadlet unit, as its comments say to fill it in, is a service of systemd: Debian 13's
// podman makes the unit of it and runs vpnd without any privilege.
func TestQuadlet(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "netstack")
	m := w.newMachine(w.gw, "containers")
	image, err := filepath.Glob(project(t, "dist/vpnd-*-oci.tar"))
	if err != nil || len(image) != 1 {
		t.Fatalf("want one image in dist, found %q (%v): packaging/release image builds it", image, err)
	}
	m.put(image[0], "/root/image.tar")
	m.put(project(t, "packaging/container/vpnd.container"), "/root/vpnd.container")
	// What a machine that is itself a container lets its podman do.
	m.run("sh", "-c", `printf '[containers]\ndefault_ulimits=["nofile=4096:4096","nproc=1000:1000"]\nkeyring=false\npids_limit=0\n[storage]\ndriver="vfs"\n' >/etc/containers/containers.conf
		printf '[storage]\ndriver="vfs"\nrunroot="/run/containers/storage"\ngraphroot="/var/lib/containers/storage"\n' >/etc/containers/storage.conf`)
	loaded := m.run("podman", "load", "-q", "-i", "/root/image.tar")
	_, version, ok := strings.Cut(strings.TrimSpace(loaded), "localhost/vpnd:")
	if !ok {
		t.Fatalf("podman load says %q, and no name", loaded)
	}
	m.run("sed", "-i", "-e", "s/VERSION$/"+version+"/", "-e", "s/^#Environment=VPND_ENDPOINT=.*/Environment=VPND_ENDPOINT="+gwPublic4+":51820/", "/root/vpnd.container")
	m.run("sh", "-c", "mkdir -p /etc/containers/systemd && cp /root/vpnd.container /etc/containers/systemd/ && systemctl daemon-reload && systemctl start vpnd || { journalctl --no-pager -o cat -u vpnd >&2; exit 1; }")
	w.ctl = func(args ...string) string {
		return m.run(append([]string{"podman", "exec", "vpnd", "vpnctl"}, args...)...)
	}
	eventually(t, 20*time.Second, "vpnd answers", func() error {
		_, err := m.try("podman", "exec", "vpnd", "vpnctl", "status")
		return err
	})
	alice := w.person("alice", "phone")
	alice.signIn()
	m.run("systemctl", "restart", "vpnd")
	eventually(t, 30*time.Second, "the session is there after a restart", func() error {
		status, body, _, err := alice.get("http://" + tunnel4 + "/api/v1/session")
		if err != nil || status != 200 || !strings.Contains(body, `"active"`) {
			return fmt.Errorf("%d %s %v", status, body, err)
		}
		return nil
	})
}

// skopeo, which nobody here wrote, reads the archive both as an OCI layout and as what docker load
// wants. No Docker runs here: docker compose reads packaging's compose.yaml as podman-compose does.
func TestImageFormats(t *testing.T) {
	t.Parallel()
	image, err := filepath.Glob(project(t, "dist/vpnd-*-oci.tar"))
	if err != nil || len(image) != 1 {
		t.Fatalf("want one image in dist, found %q (%v): packaging/release image builds it", image, err)
	}
	tags := must(t, "skopeo", "list-tags", "docker-archive:"+image[0])
	tag := regexp.MustCompile(`"(localhost/vpnd:.*-` + runtime.GOARCH + `)"`).FindStringSubmatch(tags)
	if tag == nil {
		t.Fatalf("docker load finds no image for %s: %s", runtime.GOARCH, tags)
	}
	var config [2]string
	for i, source := range []string{"docker-archive:" + image[0] + ":" + tag[1], "oci-archive:" + image[0]} {
		to := t.TempDir()
		must(t, "skopeo", "--insecure-policy", "copy", "-q", source, "dir:"+to) // reads and checks each layer
		config[i] = must(t, "skopeo", "inspect", "--config", "--format", "{{.Config.User}} {{.Config.Entrypoint}} {{.RootFS.DiffIDs}}", "dir:"+to)
	}
	if config[0] != config[1] || !strings.HasPrefix(config[0], "65532:65532 [") {
		t.Errorf("as Docker's it is\n%s, as OCI's\n%s", config[0], config[1])
	}
}
