package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"
)

// evil is what a daemon, or somebody through it, might send to steer a terminal: clear
// it, set its title, turn its text around, begin a new line that looks like ours.
const evil = "a\x1b[2J\x1b]0;title\x07\u009b31m\u202egnp\u2066\r\nvpnctl: all is well\x7f\u2028"

// answer fills every field of a message.
func answer(m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		one := func() protoreflect.Value {
			switch f.Kind() {
			case protoreflect.StringKind:
				if f.Name() == "config" {
					return protoreflect.ValueOfString("[Interface]\nAddress = 10.77.0.2/32\n" + evil)
				}
				return protoreflect.ValueOfString(evil)
			case protoreflect.BoolKind:
				return protoreflect.ValueOfBool(true)
			case protoreflect.Int32Kind:
				return protoreflect.ValueOfInt32(7)
			case protoreflect.Int64Kind:
				return protoreflect.ValueOfInt64(7)
			case protoreflect.Uint32Kind:
				return protoreflect.ValueOfUint32(7)
			case protoreflect.Uint64Kind:
				return protoreflect.ValueOfUint64(7)
			}
			sub := dynamicpb.NewMessage(f.Message())
			switch f.Message().FullName() {
			case "google.protobuf.Timestamp", "google.protobuf.Duration":
				sub.Set(f.Message().Fields().ByName("seconds"), protoreflect.ValueOfInt64(time.Now().Unix()/1000))
			default:
				answer(sub)
			}
			return protoreflect.ValueOfMessage(sub)
		}
		if f.IsList() {
			m.Mutable(f).List().Append(one())
		} else {
			m.Set(f, one())
		}
	}
}

// hostile serves every method of every service.
func hostile(t *testing.T) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		name, _ := grpc.MethodFromServerStream(stream)
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(strings.ReplaceAll(name[1:], "/", ".")))
		if err != nil {
			return err
		}
		m := d.(protoreflect.MethodDescriptor)
		if err := stream.RecvMsg(dynamicpb.NewMessage(m.Input())); err != nil {
			return err
		}
		out := dynamicpb.NewMessage(m.Output())
		answer(out)
		return stream.SendMsg(out)
	}))
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return socket
}

// hostileArgs are the arguments of every command.
var hostileArgs = map[string]string{
	"user add": "alice", "user ls": "", "user show": "alice", "user invite": "alice", "user disable": "alice",
	"user enable": "alice", "user unlock": "alice", "user reset-totp": "alice", "user rm": "alice -y",
	"device add": "alice laptop", "device ls": "", "device show": "alice/laptop", "device disable": "alice/laptop",
	"device enable": "alice/laptop", "device rotate": "alice/laptop", "device rm": "alice/laptop -y",
	"session ls": "", "session end": "alice",
	"policy show": "", "policy check": "FILE", "policy apply": "FILE", "policy history": "", "policy rollback": "1 -y",
	"policy diff": "FILE", "policy explain": "alice/phone db:5432", "policy edit": "", "policy confirm": "", "resource ls": "", "resource show": "db", "resource add": "db 10.6.0.2:5432 --for alice", "resource rm": "db", "resource check": "", "resource allow": "localhost:80",
	"group ls": "", "group add": "ops bob", "group rm": "ops alice",
	"settings show": "", "settings set": "--routes none", "status": "", "doctor": "", "whois": "10.77.0.2", "audit": "",
	"time reset": "-y", "completion": "bash", "man": "", "greet": "",
}

func TestHostileDaemonCannotSteerTheTerminal(t *testing.T) {
	socket := hostile(t)
	file := filepath.Join(t.TempDir(), "policy")
	writeFile(t, file, "{}")
	var c cli
	parser, err := newParser(&c, system{stdout: io.Discard, stderr: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range parser.Model.Leaves(false) {
		name := strings.TrimPrefix(path(n), "vpnctl ")
		args, ok := hostileArgs[name]
		if !ok {
			t.Errorf("vpnctl %s: no arguments in hostileArgs", name)
			continue
		}
		for _, format := range []string{"text", "json"} {
			t.Run(name+"/"+format, func(t *testing.T) {
				var out, errOut bytes.Buffer
				words := strings.Fields("-o " + format + " " + name + " " + strings.ReplaceAll(args, "FILE", file))
				code := run(t.Context(), testSystem(&out, &errOut, words, map[string]string{"VPNCTL_SOCKET": socket}))
				if code == exitUsage || code == exitUnreachable || code == exitNotFound {
					t.Fatalf("exit code %d: %s", code, errOut.String())
				}
				if out.Len()+errOut.Len() == 0 {
					t.Error("said nothing")
				}
				for what, text := range map[string]string{"standard output": out.String(), "standard error": errOut.String()} {
					if what == "standard output" && name == "policy show" && format == "text" {
						continue // no terminal here: the bytes of the file, see TestPolicyShowOnTerminal
					}
					for _, r := range text {
						if r != '\n' && r != '\t' && steers(r) {
							t.Fatalf("%q in %s:\n%q", r, what, text)
						}
					}
				}
				for line := range strings.Lines(errOut.String()) {
					if strings.HasPrefix(line, "vpnctl: all is well") {
						t.Error("a line of the daemon's looks like ours")
					}
				}
				if format == "json" && name != "completion" && name != "man" && out.Len() > 0 && !json.Valid(out.Bytes()) {
					t.Errorf("no JSON: %s", out.String())
				}
			})
		}
	}
}

func TestPolicyShowOnTerminal(t *testing.T) {
	var out bytes.Buffer
	a := &app{ui: &ui{out: &out, outTTY: true}, api: &client{path: hostile(t)}}
	defer a.api.close()
	if err := (&policyShowCmd{}).Run(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	for _, r := range out.String() {
		if r != '\n' && steers(r) {
			t.Fatalf("%q in %q", r, out.String())
		}
	}
}

func TestQuestionEndsWithTheContext(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	go io.Copy(io.Discard, theirs)
	u := &ui{tty: func() (io.ReadWriteCloser, error) { return ours, nil }}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := u.confirm(ctx, false, "go on?"); err == nil {
		t.Error("no answer was taken for yes")
	}
}

func TestEveryCommandHasHelp(t *testing.T) {
	var c cli
	parser, err := newParser(&c, system{stdout: io.Discard, stderr: io.Discard})
	if err != nil {
		t.Fatal(err)
	}
	err = kong.Visit(parser.Model, func(v kong.Visitable, next kong.Next) error {
		switch v := v.(type) {
		case *kong.Node:
			if v.Help == "" {
				t.Errorf("%s has no help", path(v))
			}
		case *kong.Value:
			if v.Help == "" {
				t.Errorf("%s has no help", v.Summary())
			}
		case *kong.Flag:
			if v.Help == "" {
				t.Errorf("--%s has no help", v.Name)
			}
		}
		return next(nil)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func testSystem(out, errOut io.Writer, args []string, env map[string]string) system {
	return system{
		args: args, stdin: strings.NewReader(""), stdout: out, stderr: errOut,
		tty:    func() (io.ReadWriteCloser, error) { return nil, errors.New("no terminal") },
		getenv: func(k string) string { return env[k] }, now: time.Now, uid: 1000,
	}
}
