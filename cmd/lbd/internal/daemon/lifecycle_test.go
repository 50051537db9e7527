package daemon_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"lbd/bench/sim"
	"lbd/cmd/lbd/internal/daemon"
	"lbd/internal/loopback"
)

func made(t *testing.T, settings ...string) *daemon.Daemon {
	t.Helper()
	d, err := daemon.New(load(t, []string{"http://127.0.0.1:1"}, settings...), daemon.Options{Log: zerolog.Nop(), Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Stop may come at any time and again; goleak sees what it leaves behind.
func TestStopWithoutStart(t *testing.T) {
	d := made(t)
	for range 2 {
		if err := d.Stop(t.Context()); err != nil {
			t.Errorf("stop: %v", err)
		}
	}
}

func TestStopFromManySides(t *testing.T) {
	d := made(t)
	if err := d.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, "answers", func() bool {
		c, err := net.Dial("tcp", d.Addr().String())
		if err != nil {
			return false
		}
		defer c.Close()
		c.Write([]byte("GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
		n, _ := c.Read(make([]byte, 1))
		return n == 1
	})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := d.Stop(context.Background()); err != nil {
				t.Errorf("stop: %v", err)
			}
		})
	}
	wg.Wait()
}

// An address that is taken leaves nothing running, and says which setting to
// change.
func TestStartFailsWhole(t *testing.T) {
	taken := occupied(t)
	for _, flag := range []string{"listen", "admin-listen"} {
		d := made(t, flag, taken)
		err := d.Start()
		if !errors.Is(err, daemon.ErrAddress) || !strings.Contains(err.Error(), "--"+flag) || !strings.Contains(err.Error(), taken) {
			t.Errorf("%s taken: %v; want what and where", flag, err)
		}
		if err := d.Stop(t.Context()); err != nil {
			t.Errorf("stop after that: %v", err)
		}
	}
}

// The address is free for the next one at once, as a supervisor expects.
func TestRestartOnTheSameAddress(t *testing.T) {
	r := replica(t, sim.Config{})
	addr := loopback.Free(t)
	for range 3 {
		t.Run("", func(t *testing.T) {
			p := lbd(t, urls(r), "listen", addr)
			p.spread(llama, 2)
		})
	}
}

// Stop lets a running stream finish while it lets nobody else in, and cuts what
// the deadline leaves.
func TestStopDrains(t *testing.T) {
	r := replica(t, sim.Config{})
	p := lbd(t, urls(r))
	hold(t, r)
	stream := p.stream(llama, longStream)
	stopped := make(chan error, 1)
	go func() { stopped <- p.Stop(context.Background()) }()
	p.until("closed to others", func() bool {
		c, err := net.Dial("tcp", p.Addr().String())
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	select {
	case err := <-stopped:
		t.Errorf("stopped while a stream runs: %v", err)
		stopped <- err
	default:
	}
	letGo(t, r)
	if n := stream.finish(); n != longStream {
		t.Errorf("the stream under way ended after %d tokens; want %d", n, longStream)
	}
	if err := <-stopped; err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestStopCutsAtTheDeadline(t *testing.T) {
	r := replica(t, sim.Config{Speed: 1})
	p := lbd(t, urls(r))
	stream := p.stream(llama, 100000)
	over, cancel := context.WithCancel(context.Background())
	cancel()
	if err := p.Stop(over); err == nil || !errors.Is(err, context.Canceled) {
		t.Errorf("stop: %v; want that something was cut", err)
	}
	if n := p.inFlight(r); n != 0 {
		t.Errorf("own load %d when Stop has returned", n)
	}
	if _, err := stream.body.ReadString(0); err == nil || err.Error() == "EOF" {
		t.Errorf("the stream ended with %v; want an error the client can see", err)
	}
	until(t, "the replica free", func() bool { return r.Stats().InFlight == 0 })
}

func TestStopRightAfterStart(t *testing.T) {
	for range 100 {
		d := made(t)
		if err := d.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- d.Stop(context.Background()) }()
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(patience):
			t.Fatal("hangs")
		}
	}
}
