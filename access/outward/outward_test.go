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
	if _, err := o.Set(Config{ByID: map[string]Replica{"b:1": {}}}); err != nil {
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

// Connections go on by the rules they were made by exactly as long as those hold.
func TestRulesThatHold(t *testing.T) {
	ca, other := certstest.New(t, "ca"), certstest.New(t, "other")
	common, own := ca.Write(t, t.TempDir(), "lbd"), ca.Write(t, t.TempDir(), "lbd")
	config := func() Config {
		return Config{
			Default: Replica{APIKey: "one", TLS: TLS{Files: certs.Files{CA: common.CA}}},
			ByID:    map[string]Replica{"b": {TLS: TLS{Files: certs.Files{CA: own.CA, Cert: own.Cert, Key: own.Key}, ServerName: "vllm"}}},
		}
	}
	o := outward(t, config())
	var a, b *tls.Config
	now := func() { a, b = o.TLS("a", "a:1"), o.TLS("b", "b:1") }
	holds := func(what string, wantA, wantB bool) {
		t.Helper()
		wasA, wasB := a, b
		if now(); (a == wasA) != wantA || (b == wasB) != wantB {
			t.Errorf("%s: a's rules stay %t, b's %t; want %t, %t", what, a == wasA, b == wasB, wantA, wantB)
		}
	}
	set := func(what string, c Config, want bool) {
		t.Helper()
		if renewed, err := o.Set(c); renewed != want || err != nil {
			t.Errorf("%s: renewed %t, %v; want %t", what, renewed, err, want)
		}
	}
	refresh := func(what string, want bool) {
		t.Helper()
		if changed, err := o.Refresh(); changed != want || err != nil {
			t.Errorf("%s: changed %t, %v; want %t", what, changed, err, want)
		}
	}
	now()
	set("the same again", config(), false)
	holds("the same again", true, true)
	c := config()
	c.Default.APIKey = "two"
	set("another key", c, false)
	holds("another key", true, true)
	certstest.Put(t, common.CA, ca.PEM)
	refresh("the same written again", false)
	holds("the same written again", true, true)
	set("and reloaded", c, false)
	holds("and reloaded", true, true)
	cert, key := ca.Issue(t, "lbd")
	certstest.Put(t, own.Cert, cert)
	certstest.Put(t, own.Key, key)
	refresh("b's certificate", true)
	holds("b's certificate", true, false)
	certstest.Put(t, common.CA, other.PEM)
	set("a's CA, with a reload", c, true)
	holds("a's CA, with a reload", false, true)
	c.ByID["b"] = Replica{TLS: TLS{Files: c.ByID["b"].TLS.Files, ServerName: "other"}}
	set("b's name", c, true)
	holds("b's name", true, false)
	c.ByID["a"] = Replica{TLS: TLS{Files: c.Default.TLS.Files, ServerName: "a"}}
	set("a's own, which is what it was", c, false)
	holds("a's own, which is what it was", true, true)
	c.Default.TLS.Insecure = true
	set("no check of others", c, false)
	delete(c.ByID, "a")
	set("no check of a", c, true)
	holds("no check of a", false, true)
	o.Retain(func(id string) bool { return id == "a" })
	holds("b left", true, false)
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
	_, err := o.Set(Config{Default: Replica{APIKey: "new"}, ByID: map[string]Replica{"a": {TLS: TLS{Files: certs.Files{CA: "/nowhere"}}}}})
	if err == nil || o.Authorization("x") != "Bearer old" {
		t.Errorf("%v, %q", err, o.Authorization("x"))
	}
	if ids := o.Insecure(); !slices.Equal(ids, nil) {
		t.Errorf("%q", ids)
	}
}
