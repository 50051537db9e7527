package sock

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"testing"
	"time"

	"lbd/internal/loopback"
)

// selfSigned is a configuration for both sides.
func selfSigned(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}
}

// secured returns both sides of a connection in TLS: as lbd accepts clients and as
// it dials replicas.
func secured(t *testing.T, stall time.Duration) (accepted, dialled *Conn) {
	t.Helper()
	server, client := selfSigned(t)
	w, err := NewWatch()
	if err != nil {
		t.Fatal(err)
	}
	ln, err := Listen(loopback.Address(), w, stall)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan error, 1)
	go func() {
		c, err := ln.AcceptConn()
		if err == nil {
			accepted = c
			err = c.StartServer(server, patience)
		}
		got <- err
	}()
	dialled, err = DialTLS(t.Context(), ln.Addr().String(), client, patience, stall, w)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		dialled.Close()
		accepted.Close()
		ln.Close()
		w.Close()
	})
	return accepted, dialled
}

// Everything that is written arrives, whatever the sizes of records and buffers.
func TestTLSCarriesBytes(t *testing.T) {
	a, b := secured(t, time.Minute)
	if !a.Secure() || !b.Secure() {
		t.Fatal("not secure")
	}
	sent := make([]byte, 3<<20)
	rand.Read(sent)
	done := make(chan error, 1)
	go func() {
		_, err := a.Write(sent)
		a.Finish()
		done <- err
	}()
	var got bytes.Buffer
	for {
		buf, n, err := b.ReadBuf()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got.Write(buf.B[:n])
		PutBuf(buf)
	}
	if err := <-done; err != nil || !bytes.Equal(got.Bytes(), sent) {
		t.Errorf("%v, %d bytes of %d", err, got.Len(), len(sent))
	}
}

// An end that was announced is one; a connection that just ends is cut.
func TestTLSTellsAnEndFromACut(t *testing.T) {
	for _, whole := range []bool{true, false} {
		a, b := secured(t, time.Minute)
		if !whole {
			a.SetLinger(0)
		}
		a.Finish()
		a.Close()
		_, err := b.Read(make([]byte, 10))
		if errors.Is(err, io.EOF) != whole {
			t.Errorf("whole %v: %v", whole, err)
		}
	}
}

// A connection on which something came unasked is not quiet, also when crypto/tls
// has read it off the socket already.
func TestTLSQuiet(t *testing.T) {
	a, b := secured(t, time.Minute)
	answer := func() {
		t.Helper()
		if _, err := a.Write([]byte("answer")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(b, make([]byte, 6)); err != nil {
			t.Fatal(err)
		}
	}
	answer()
	due := time.Now().Add(time.Hour)
	if err := b.WaitUntil(due); err != nil {
		t.Fatal(err)
	}
	if !b.Quiet() {
		t.Error("not quiet after a whole answer")
	}
	answer() // and the deadline is not the one of the look
	a.Write([]byte("answer"))
	a.Write([]byte("stray"))
	time.Sleep(10 * time.Millisecond) // both in one read of crypto/tls, as a rule
	if _, err := io.ReadFull(b, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	if b.Quiet() {
		t.Error("quiet with bytes that nobody asked for")
	}
	if _, _, _, _, err := b.Ask([]byte("request"), true, nil); !errors.Is(err, ErrNotQuiet) {
		t.Errorf("asked on: %v", err)
	}
}

func TestTLSAsk(t *testing.T) {
	a, b := secured(t, time.Minute)
	go func() {
		p := make([]byte, 7)
		if _, err := io.ReadFull(a, p); err == nil {
			a.Write(append([]byte("re: "), p...))
		}
	}()
	before := b.Written()
	n, sendErr, buf, m, err := b.Ask([]byte("request"), true, nil)
	if n != 7 || sendErr != nil || err != nil || string(buf.B[:m]) != "re: request" {
		t.Fatal(n, sendErr, err)
	}
	PutBuf(buf)
	if w := b.Written() - before; w <= 7 {
		t.Errorf("%d bytes on the wire for 7", w)
	}
}

// A replica that closes in good order before a request has arrived: it did not run.
func TestTLSNotArrived(t *testing.T) {
	a, b := secured(t, time.Minute)
	a.Finish()
	a.Close()
	for !b.Gone() {
		time.Sleep(time.Millisecond)
	}
	mark := b.Written()
	b.Read(make([]byte, 1))
	if b.Arrived(mark) {
		t.Error("nothing was sent, but may have arrived")
	}
}

// A client that says nothing, or nothing that makes sense, is given up.
func TestTLSHandshakeThatFails(t *testing.T) {
	server, _ := selfSigned(t)
	ln, err := Listen(loopback.Address(), nil, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, says := range []string{"", "GET / HTTP/1.1\r\n\r\n"} {
		nc, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		nc.Write([]byte(says))
		c, err := ln.AcceptConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.StartServer(server, 50*time.Millisecond); err == nil || c.Secure() {
			t.Errorf("%q: %v", says, err)
		}
		c.Close()
		nc.Close()
	}
}
