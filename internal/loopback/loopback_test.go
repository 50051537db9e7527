package loopback

import (
	"errors"
	"net"
	"runtime"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Nobody else is where these tests listen: neither another draw, nor those who take what
// they are given at 127.0.0.1.
func TestAddress(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("here only 127.0.0.1 is this machine's")
	}
	seen := map[string]bool{"127.0.0.1": true}
	for range 16 {
		host, _, err := net.SplitHostPort(Listen(t).Addr().String())
		if err != nil || seen[host] || !net.ParseIP(host).IsLoopback() {
			t.Errorf("address %q (%v); want a loopback address that nobody has", host, err)
		}
		seen[host] = true
	}
}

func TestFree(t *testing.T) {
	if _, err := net.Dial("tcp", Free(t)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("connecting: %v; want ECONNREFUSED", err)
	}
}
