package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"vpnd/peers"
)

// keyFlags say where a device's key comes from and where its config goes.
type keyFlags struct {
	PublicKey string `help:"Take this public key instead of making a pair: the private key stays where it was made." placeholder:"KEY"`
	QR        bool   `name:"qr" help:"Draw the config as a QR code instead of printing it." xor:"where"`
	Out       string `help:"Write the config to a new file that only you can read." placeholder:"FILE" xor:"where" predictor:"file"`
}

// pending is a key, and a place for its config, before the daemon knows about either.
type pending struct {
	flags   keyFlags
	public  string
	private string   // base64; empty when the key was made elsewhere
	file    *os.File // open and empty; nil once it is written
}

// prepare does everything that can fail before anything is changed.
func (f keyFlags) prepare() (*pending, error) {
	k := &pending{flags: f}
	switch {
	case f.PublicKey != "":
		if _, err := peers.ParseKey(f.PublicKey); err != nil {
			return nil, usagef("--public-key: %q is no WireGuard public key that can be used: want the 44 characters that `wg pubkey` prints", f.PublicKey)
		}
		if f.QR {
			return nil, usagef("--qr cannot draw the config of a key made elsewhere: its private key belongs in it")
		}
		k.public = f.PublicKey
	default:
		private, err := wgtypes.GeneratePrivateKey()
		if err != nil {
			return nil, fmt.Errorf("make a key: %w", err)
		}
		k.private, k.public = private.String(), private.PublicKey().String()
	}
	if f.Out != "" {
		file, err := os.OpenFile(f.Out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("%s exists already and is left alone: give another name with --out", f.Out)
		}
		if err != nil {
			return nil, fmt.Errorf("make the config's file: %w", err)
		}
		k.file = file
	}
	return k, nil
}

// discard takes an unused file away.
func (k *pending) discard() {
	if k.file != nil {
		k.file.Close()
		os.Remove(k.file.Name())
	}
}

// deliver completes the config and puts it where the flags say. What it returns is for
// the JSON answer: empty when the config went to a file.
func (k *pending) deliver(a *app, config string) (string, error) {
	config, err := withPrivateKey(config, k.private)
	if err != nil {
		return "", err
	}
	if k.file != nil {
		_, err := k.file.WriteString(config)
		if err = errors.Join(err, k.file.Sync(), k.file.Close()); err != nil {
			return "", fmt.Errorf("write %s: %w", k.flags.Out, err)
		}
		k.file = nil
		return "", nil
	}
	if a.json {
		return config, nil
	}
	if k.flags.QR {
		missing, err := a.drawQR(config)
		if err != nil || missing == 0 {
			return config, err
		}
		a.notef("the QR code needs %d columns more than this terminal has: here is the config as text", missing)
	}
	// Not cleaned but checked: these bytes are the config.
	if config != cleanText(config) {
		return "", errors.New("vpnd sent a config with control characters: do not use it")
	}
	_, err = fmt.Fprint(a.out, config)
	return config, err
}

// remark says what has to be known about the private key.
func (k *pending) remark(a *app) {
	switch {
	case k.private == "":
		a.notef("the config has no PrivateKey line: add the key you made after [Interface]")
	case k.flags.Out != "":
		a.notef("the config is in %s; it holds the private key, which was made here and is nowhere else", k.flags.Out)
	default:
		a.notef("the private key was made here and is in this config alone: it cannot be shown again")
	}
}

// withPrivateKey adds the line that the server must not know, after [Interface].
func withPrivateKey(config, private string) (string, error) {
	const section = "[Interface]\n"
	if strings.Count(config, section) != 1 {
		return "", errors.New("vpnd sent a config without its [Interface] section: it is of another version than vpnctl")
	}
	if private == "" {
		return config, nil
	}
	return strings.Replace(config, section, section+"PrivateKey = "+private+"\n", 1), nil
}
