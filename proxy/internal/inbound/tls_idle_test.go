package inbound

import (
	"crypto/tls"
	"net"
	"testing"
	"time"

	"lbd/access/certs/certstest"
	"lbd/internal/loopback"
	"lbd/proxy/internal/sock"
)

// Bytes of a record that does not end are no request: who sends one now and then waits no
// longer for it than who sends none.
func TestDribbleInTLS(t *testing.T) {
	ca := certstest.New(t, "ca")
	paths := ca.Write(t, t.TempDir(), "lbd")
	cert, err := tls.LoadX509KeyPair(paths.Cert, paths.Key)
	if err != nil {
		t.Fatal(err)
	}
	lim := plentiful
	lim.Idle = parkAfter + parkAfter/2 // so that it is parked, and begun anew by each byte
	ln, err := sock.Listen(loopback.Address(), newWatch(t), patience)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(newAnswerer(), lim)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	served := make(chan error)
	go func() { served <- s.Serve(ln) }()
	defer func() {
		s.Shutdown(soon(t))
		<-served
	}()
	raw, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c := tls.Client(raw, &tls.Config{RootCAs: ca.Pool(), ServerName: "lbd"})
	send(t, c, get("/first"))
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	raw.Write([]byte{0x17, 3, 3, 0x40, 0}) // application data, 16 KiB of it
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := raw.Write([]byte{0}); err != nil {
			return // the server has closed the connection
		}
		if time.Now().After(end) {
			t.Fatal("the connection is kept for a client that sends no request")
		}
	}
}
