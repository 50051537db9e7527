package sock

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lbd/internal/loopback"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience bounds how long a test waits for something that must happen. Nothing
// is asserted about how soon it does.
const patience = 2 * time.Minute

func newWatch(t testing.TB) *Watch {
	t.Helper()
	w, err := NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	closeLater(t, w)
	return w
}

func closeLater(t testing.TB, w *Watch) {
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Errorf("close watch: %v", err)
		}
	})
}

func listen(t testing.TB, w *Watch, stall time.Duration) *Listener {
	t.Helper()
	ln, err := Listen(loopback.Address(), w, stall)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln
}

// accepted returns a connection as the listener hands it out and its peer.
func accepted(t testing.TB, w *Watch, stall time.Duration) (*Conn, *net.TCPConn) {
	t.Helper()
	ln := listen(t, w, stall)
	peer, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	nc, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	t.Cleanup(func() { peer.Close(); nc.Close() })
	return nc.(*Conn), peer.(*net.TCPConn)
}

// dialled returns a connection as Dial makes it and its peer.
func dialled(t testing.TB, w *Watch) (*Conn, *net.TCPConn) {
	t.Helper()
	ln := loopback.Listen(t)
	defer ln.Close()
	c, err := Dial(context.Background(), ln.Addr().String(), patience, 0, w)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(); peer.Close() })
	return c, peer.(*net.TCPConn)
}

func within(t testing.TB, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("%s did not happen", what)
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not happen", what)
		}
	}
}

// reset closes with RST.
func reset(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

func send(t testing.TB, c io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

func recv(t testing.TB, c io.Reader, want string) {
	t.Helper()
	buf := make([]byte, len(want))
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != want {
		t.Fatalf("got %q, %v; want %q", buf, err, want)
	}
}
