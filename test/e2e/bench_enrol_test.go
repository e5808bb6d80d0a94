package e2e

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	vpnv1 "vpnd/proto/vpn/v1"
)

const (
	callers        = 16
	devicesPerUser = 20
)

// enrolRound adds n devices through gRPC with 16 callers and gives the rate per second; n
// is a multiple of devicesPerUser. Their owners are there before, and go afterwards:
// the state is as large as it was.
func (b *bed) enrolRound(n int) float64 {
	b.t.Helper()
	ctx := b.t.Context()
	users, devices := vpnv1.NewUserServiceClient(b.conn), vpnv1.NewDeviceServiceClient(b.conn)
	keys := publicKeys(b, n)
	first := b.seq
	b.seq += n / devicesPerUser
	owner := func(i int) string { return fmt.Sprintf("w%d", first+i/devicesPerUser) }
	b.callers(n/devicesPerUser, func(i int) error {
		_, err := users.AddUser(ctx, &vpnv1.AddUserRequest{Name: owner(i * devicesPerUser)})
		return err
	})
	took := b.callers(n, func(i int) error {
		_, err := devices.AddDevice(ctx, &vpnv1.AddDeviceRequest{User: owner(i), Name: fmt.Sprintf("d%d", i%devicesPerUser), PublicKey: keys[i]})
		return err
	})
	b.noAddressTwice(ctx, b.n+n)
	b.removeUsers(ctx, first, b.seq)
	return float64(n) / took.Seconds()
}

// peopleRound adds n people with their invitations, and a device each: two commands.
func (b *bed) peopleRound(n int) float64 {
	b.t.Helper()
	ctx := b.t.Context()
	users, devices := vpnv1.NewUserServiceClient(b.conn), vpnv1.NewDeviceServiceClient(b.conn)
	keys := publicKeys(b, n)
	first := b.seq
	b.seq += n
	took := b.callers(n, func(i int) error {
		name := fmt.Sprintf("w%d", first+i)
		if _, err := users.AddUser(ctx, &vpnv1.AddUserRequest{Name: name}); err != nil {
			return err
		}
		_, err := devices.AddDevice(ctx, &vpnv1.AddDeviceRequest{User: name, Name: "phone", PublicKey: keys[i]})
		return err
	})
	b.noAddressTwice(ctx, b.n+n)
	b.removeUsers(ctx, first, b.seq)
	return float64(n) / took.Seconds()
}

func (b *bed) removeUsers(ctx context.Context, from, to int) {
	b.t.Helper()
	users := vpnv1.NewUserServiceClient(b.conn)
	b.callers(to-from, func(i int) error {
		_, err := users.RemoveUser(ctx, &vpnv1.RemoveUserRequest{Name: fmt.Sprintf("w%d", from+i)})
		return err
	})
}

// callers calls do for 0 to n-1 with 16 callers and says how long it took.
func (b *bed) callers(n int, do func(int) error) time.Duration {
	b.t.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	begin := time.Now()
	for range callers {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					b.t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	took := time.Since(begin)
	if b.t.Failed() {
		b.t.FailNow()
	}
	return took
}

func publicKeys(b *bed, n int) []string {
	b.t.Helper()
	keys := make([]string, n)
	for i := range keys {
		k, err := ecdh.X25519().GenerateKey(rand.Reader)
		if err != nil {
			b.t.Fatal(err)
		}
		keys[i] = base64.StdEncoding.EncodeToString(k.PublicKey().Bytes())
	}
	return keys
}
