package outward

import (
	"crypto/tls"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"lbd/access/certs"
	"lbd/access/certs/certstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func outward(t *testing.T, c Config) *Outward {
	t.Helper()
	o, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestAuthorization(t *testing.T) {
	o := outward(t, Config{Default: Replica{APIKey: "common"}, ByID: map[string]Replica{"a:1": {APIKey: "own"}, "b:1": {}}})
	for id, want := range map[string]string{"a:1": "Bearer own", "b:1": "", "c:1": "Bearer common"} {
		if got := o.Authorization(id); got != want {
			t.Errorf("%s: %q; want %q", id, got, want)
		}
	}
	if !o.Replaces() {
		t.Error("replaces nothing")
	}
	if err := o.Set(Config{ByID: map[string]Replica{"b:1": {}}}); err != nil {
		t.Fatal(err)
	}
	if got := o.Authorization("a:1"); got != "" || o.Replaces() {
		t.Errorf("%q after it was taken away", got)
	}
}

func TestNoAllocations(t *testing.T) {
	o := outward(t, Config{Default: Replica{APIKey: "common"}, ByID: map[string]Replica{"a:1": {APIKey: "own"}}})
	if n := testing.AllocsPerRun(100, func() { o.Authorization("a:1"); o.Authorization("z:1") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// server answers each connection with one byte.
func server(t *testing.T, p certstest.Paths, clientCA bool) (addr string) {
	t.Helper()
	f := certs.Files{Cert: p.Cert, Key: p.Key}
	if clientCA {
		f.CA = p.CA
	}
	l, err := certs.NewListener(f)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", l.Config())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("x"))
			c.Close()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return ln.Addr().String()
}

func dial(t *testing.T, o *Outward, id, addr string) error {
	t.Helper()
	c, err := o.Dial(t.Context(), id, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = io.ReadFull(c, make([]byte, 1))
	return err
}

// Each replica is spoken to in its own way, and a change counts for the next
// connection.
func TestDial(t *testing.T) {
	ca, other := certstest.New(t, "ca"), certstest.New(t, "other")
	a, b := ca.Write(t, t.TempDir(), "127.0.0.1"), other.Write(t, t.TempDir(), "vllm")
	mine := other.Write(t, t.TempDir(), "lbd")
	addrA, addrB := server(t, a, false), server(t, b, true)
	o := outward(t, Config{
		Default: Replica{TLS: TLS{Files: certs.Files{CA: a.CA}}},
		ByID: map[string]Replica{
			"b":        {TLS: TLS{Files: certs.Files{CA: b.CA, Cert: mine.Cert, Key: mine.Key}, ServerName: "vllm"}},
			"b-name":   {TLS: TLS{Files: certs.Files{CA: b.CA, Cert: mine.Cert, Key: mine.Key}}},
			"b-nocert": {TLS: TLS{Files: certs.Files{CA: b.CA}, ServerName: "vllm"}},
			"b-loose":  {TLS: TLS{Files: certs.Files{Cert: mine.Cert, Key: mine.Key}, Insecure: true}},
		},
	})
	for _, c := range []struct {
		id, addr, want string
	}{
		{"a", addrA, ""}, {"b", addrB, ""}, {"b-loose", addrB, ""},
		{"a", addrB, "x509"}, {"b-name", addrB, "127.0.0.1"}, {"b-nocert", addrB, "certificate required"},
	} {
		err := dial(t, o, c.id, c.addr)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", c.id, err, c.want)
		}
	}
	if got := fmt.Sprint(o.Insecure()); got != "[b-loose]" {
		t.Errorf("insecure: %s", got)
	}
	before := o.TLS("a", addrA)
	if o.TLS("a", addrA) != before {
		t.Error("connections do not share their sessions")
	}
	certstest.Put(t, a.CA, other.PEM)
	if changed, err := o.Refresh(); !changed || err != nil {
		t.Fatal(changed, err)
	}
	if err := dial(t, o, "a", addrA); err == nil {
		t.Error("the old CA is believed after a change")
	}
	certstest.Put(t, a.CA, []byte("rubbish"))
	if changed, err := o.Refresh(); changed || err == nil || !strings.Contains(err.Error(), a.CA) {
		t.Errorf("rubbish: %v %v", changed, err)
	}
}

// A server in plain text is not spoken to in plain text instead.
func TestNoFallBackToPlainText(t *testing.T) {
	ln := certstest.Listen(t)
	defer ln.Close()
	read := make(chan []byte, 1)
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		b := make([]byte, 64)
		n, _ := c.Read(b)
		read <- b[:n]
		c.Write([]byte("HTTP/1.1 200 OK\r\n\r\n"))
		c.Close()
	}()
	o := outward(t, Config{Default: Replica{APIKey: "secret", TLS: TLS{Insecure: true}}})
	if err := dial(t, o, "a", ln.Addr().String()); err == nil {
		t.Error("no error")
	}
	if got := <-read; len(got) == 0 || got[0] != 0x16 || strings.Contains(string(got), "secret") { // 22: handshake
		t.Errorf("it was sent %q", got)
	}
}

func TestSetThatFails(t *testing.T) {
	o := outward(t, Config{Default: Replica{APIKey: "old"}})
	err := o.Set(Config{Default: Replica{APIKey: "new"}, ByID: map[string]Replica{"a": {TLS: TLS{Files: certs.Files{CA: "/nowhere"}}}}})
	if err == nil || o.Authorization("x") != "Bearer old" {
		t.Errorf("%v, %q", err, o.Authorization("x"))
	}
	if ids := o.Insecure(); !slices.Equal(ids, nil) {
		t.Errorf("%q", ids)
	}
}
