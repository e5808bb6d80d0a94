package store

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"vpnd/peers"
)

// crashDir, in the environment, makes the test binary a writer to be killed.
const crashDir = "VPND_TEST_STORE_CRASH"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		crashWriter(dir)
		return
	}
	os.Exit(m.Run())
}

// crashWriter adds users until it is killed, and prints each name once it is acknowledged.
func crashWriter(dir string) {
	ctx := context.Background()
	s, err := Open(ctx, Config{Dir: dir, Fatal: func(err error) { panic(err) }})
	if err != nil {
		panic(err)
	}
	if err := s.Ready(ctx); err != nil {
		panic(err)
	}
	if _, ok := s.State().View().Settings(); !ok {
		if _, r, err := s.Propose(ctx, initial()); err != nil || r.Err != nil {
			panic(fmt.Sprint(err, r.Err))
		}
	}
	go func() { // snapshots too may be cut short
		for {
			s.Snapshot()
			time.Sleep(3 * time.Millisecond)
		}
	}()
	run := time.Now().UnixNano() % 1e9
	var out sync.Mutex
	for w := range 8 {
		go func() {
			for n := 0; ; n++ {
				name := fmt.Sprintf("u%d-%d-%d", run, w, n)
				c := command(peers.UserAdd{ID: randomID(), Name: name})
				c.Request = randomID()
				_, r, err := s.Propose(ctx, c)
				if err != nil || r.Err != nil {
					panic(fmt.Sprint(err, r.Err))
				}
				out.Lock()
				fmt.Println(name)
				out.Unlock()
			}
		}()
	}
	select {}
}

// randomID is of no other run.
func randomID() (id peers.ID) {
	rand.Read(id[:])
	return id
}

func TestKillLosesNothingAcknowledged(t *testing.T) {
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var acknowledged []string
	for round := range 5 {
		cmd := exec.Command(exe)
		cmd.Env = append(os.Environ(), crashDir+"="+dir)
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		got := 0
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			acknowledged = append(acknowledged, lines.Text())
			if got++; got == 100+37*round {
				cmd.Process.Kill() // what it has printed by then is read to the end
			}
		}
		cmd.Wait()
		if got < 100 {
			t.Fatalf("round %d: the writer stopped after %d: %s", round, got, stderr.String())
		}
		s := open(t, dir)
		v := s.State().View()
		for _, name := range acknowledged {
			if v.UserByName(name) == nil {
				t.Errorf("round %d: %s was acknowledged and is lost", round, name)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d acknowledged commands over five kills", len(acknowledged))
}
