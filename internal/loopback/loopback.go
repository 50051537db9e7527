package loopback

import (
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"testing"
)

// Address draws an address, with port 0 for any. Where only 127.0.0.1 is this machine's
// it is that.
func Address() string {
	if runtime.GOOS != "linux" { // where all of 127.0.0.0/8 is
		return "127.0.0.1:0"
	}
	return fmt.Sprintf("127.%d.%d.%d:0", 64+rand.IntN(128), rand.IntN(256), 1+rand.IntN(254))
}

// Listen listens at an address of its own until the test is over, unless it is closed
// before.
func Listen(t testing.TB) *net.TCPListener {
	t.Helper()
	ln, err := net.Listen("tcp", Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln.(*net.TCPListener)
}

// Free is an address with a port where nobody listens any more.
func Free(t testing.TB) string {
	t.Helper()
	ln := Listen(t)
	defer ln.Close()
	return ln.Addr().String()
}
