package main

import (
	"path/filepath"
	"time"

	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/recall"
)

// endpoints is the file of where clients were last heard from, beside the state.
func (d *Daemon) endpoints() string { return filepath.Join(d.flags.Data, "endpoints") }

// publicKey is the tunnel's; it tells whose peers a file is about.
func (d *Daemon) publicKey() dataplane.Key {
	settings, _ := d.store.State().View().Settings()
	return dataplane.Key(settings.PublicKey)
}

// recall is what a process before this one has left to be recalled.
func (d *Daemon) recall() dataplane.Recall {
	r, say := recall.Read(d.endpoints(), d.publicKey(), time.Now())
	if say != "" {
		d.part("recall").Warn("clients may notice this restart", "why", say)
	}
	return r
}

// keeper writes where clients are for the next process.
func (d *Daemon) keeper() *recall.Keeper {
	return &recall.Keeper{Path: d.endpoints(), Gateway: d.publicKey(), Plane: d, Now: time.Now, Log: d.part("recall")}
}
