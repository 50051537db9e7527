//go:build linux && (amd64 || arm64)

package load

import (
	"io"
	"net"
	"testing"
	"time"
)

// pair is the two ends of a TCP connection.
func pair(t *testing.T) (client, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// Bytes that lie in the socket arrived when they came, not when they are read.
func TestStampIsTheKernels(t *testing.T) {
	client, server := pair(t)
	s := newStamper(client)
	if s == nil {
		t.Fatal("no stamps on a TCP connection")
	}
	buf := make([]byte, 64)
	// The kernel turns stamps on a little after the first socket of a machine has
	// asked for them.
	for try := 0; ; try++ {
		before := time.Now()
		io.WriteString(server, "event")
		after := time.Now()
		const lay = 50 * time.Millisecond
		time.Sleep(lay)
		n, arrived, err := s.Read(buf)
		if string(buf[:n]) != "event" || err != nil {
			t.Fatalf("%q, %v", buf[:n], err)
		}
		// The two clocks are read one after the other: allow a little for that.
		const slack = time.Millisecond
		if !arrived.Before(before.Add(-slack)) && !arrived.After(after.Add(slack)) {
			break
		}
		if try == 20 {
			t.Fatalf("arrived %v after it was written; read after %v", arrived.Sub(before), lay)
		}
	}
	server.Close()
	if _, _, err := s.Read(buf); err != io.EOF {
		t.Errorf("error %v at the end; want EOF", err)
	}
	client.SetReadDeadline(time.Unix(1, 0))
	if _, _, err := s.Read(buf); !isTimeout(err) {
		t.Errorf("error %v after the deadline; want a timeout", err)
	}
	if newStamper(struct{ net.Conn }{client}) != nil {
		t.Error("stamps of a connection that is not TCP's")
	}
}

// A read with its stamp allocates nothing.
func TestStampsDoNotAllocate(t *testing.T) {
	client, server := pair(t)
	s := newStamper(client)
	buf, event := make([]byte, 64), []byte("event")
	if n := testing.AllocsPerRun(200, func() {
		server.Write(event)
		if _, _, err := s.Read(buf); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per read, want 0", n)
	}
}

func TestResultsSayWhoseClock(t *testing.T) {
	res, _ := runTCP(t, answerAfter(0, 0), Options{Requests: every(1, 0)})
	if res.EventClock != "kernel" {
		t.Errorf("clock of the %s over TCP, want the kernel's", res.EventClock)
	}
	res, _ = run(t, answerAfter(0, 0), Options{Requests: every(1, 0)})
	if res.EventClock != "client" {
		t.Errorf("clock of the %s over a pipe, want the client's", res.EventClock)
	}
}
