package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"time"

	"vpnd/internal/control"
	"vpnd/internal/dataplane"
	"vpnd/internal/dataplane/linux"
	"vpnd/internal/reconcile"
	"vpnd/internal/store"
	"vpnd/peers"
)

// memoryJob is what measureMemory is told, in VPND_E2E_MEMORY.
type memoryJob struct{ Data, SealingKey, Interface string }

// heap is the live heap in bytes, after a collection.
type heap struct {
	All       uint64
	WireGuard uint64            // what wireguard-go has allocated
	By        map[string]uint64 // the rest by the package of ours that asked for it
}

// measureMemory runs what grows with the devices (state, log, reconciler, linux plane
// with filter and wireguard-go) in a process of its own, wired as vpnd wires them, and
// prints the live heap. vpnd itself has no way to say which part of its heap is whose.
func measureMemory(text string) error {
	runtime.MemProfileRate = 2048
	var job memoryJob
	if err := json.Unmarshal([]byte(text), &job); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	key, err := control.LoadSealingKey(job.SealingKey, true)
	if err != nil {
		return err
	}
	sealer, err := control.NewSealer(key)
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	s, err := store.Open(ctx, store.Config{Dir: job.Data, Log: log, Fatal: func(err error) { log.Error("the store fails", "why", err) }})
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.Ready(ctx); err != nil {
		return err
	}
	plane, err := linux.New(ctx, dataplane.Config{Interface: job.Interface, AppPort: 8080, Log: log})
	if err != nil {
		return err
	}
	defer plane.Close()
	r := reconcile.New(reconcile.Config{
		State: s.State(), Plane: plane, PresharedKey: sealer.PresharedKey, Now: time.Now, Log: log,
		Gateway: func(set peers.Settings) (dataplane.Gateway, error) {
			k, err := sealer.GatewayKey(set)
			return dataplane.Gateway{PrivateKey: k, Listen: netip.MustParseAddrPort("0.0.0.0:51820"), Addrs: set.GatewayAddrs(), Network: set.Network, Routes: set.Routes, Masquerade: true}, err
		},
	})
	go r.Run(ctx)
	if err := r.Wait(ctx, s.State().View().Index()); err != nil {
		return err
	}
	out, err := json.Marshal(liveHeap())
	fmt.Printf("%s\n", out)
	return err
}

// liveHeap collects garbage and says what is left.
func liveHeap() heap {
	runtime.GC()
	runtime.GC() // the profile is as of the last collection but one
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	records := make([]runtime.MemProfileRecord, 1000)
	for {
		n, ok := runtime.MemProfile(records, false)
		if ok {
			records = records[:n]
			break
		}
		records = make([]runtime.MemProfileRecord, n+1000)
	}
	h := heap{All: m.HeapAlloc, By: map[string]uint64{}}
	for _, r := range records {
		n, size := float64(r.InUseObjects()), float64(r.InUseBytes())
		if n == 0 {
			continue
		}
		// Of allocations of this size, the share that is sampled (as pprof has it).
		size /= 1 - math.Exp(-size/n/float64(runtime.MemProfileRate))
		owner := ownerOf(r.Stack())
		if owner == "wireguard" {
			h.WireGuard += uint64(size)
		} else {
			h.By[owner] += uint64(size)
		}
	}
	return h
}

// ownerOf names the package whose allocation this is: wireguard-go wherever it is in the
// stack, else the innermost of ours.
func ownerOf(stack []uintptr) string {
	frames := runtime.CallersFrames(stack)
	owner := ""
	for {
		f, more := frames.Next()
		if strings.HasPrefix(f.Function, "golang.zx2c4.com/wireguard/") && !strings.Contains(f.Function, "/wgctrl") {
			return "wireguard"
		}
		if owner == "" && strings.HasPrefix(f.Function, "vpnd/") {
			i := strings.LastIndex(f.Function, "/")
			owner, _, _ = strings.Cut(f.Function[i+1:], ".")
		}
		if !more {
			break
		}
	}
	if owner == "" {
		return "libraries"
	}
	return owner
}
