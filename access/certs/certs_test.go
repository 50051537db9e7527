package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lbd/access/certs/certstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func listener(t *testing.T, f Files) *Listener {
	t.Helper()
	l, err := NewListener(f)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func identity(t *testing.T, f Files, insecure bool) *Identity {
	t.Helper()
	i, err := NewIdentity(f, insecure)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// handshake connects both sides and carries a byte to the client, since a client of
// TLS 1.3 learns only then that its certificate was refused.
func handshake(t *testing.T, server, client *tls.Config) (seen tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	ln := tls.NewListener(certstest.Listen(t), server)
	defer ln.Close()
	done := make(chan error, 1)
	go func() {
		c, err := ln.Accept()
		if err == nil {
			c.SetDeadline(time.Now().Add(time.Minute))
			_, err = c.Write([]byte("x"))
			c.Close()
		}
		done <- err
	}()
	raw, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	raw.SetDeadline(time.Now().Add(time.Minute))
	c := tls.Client(raw, client)
	_, clientErr = io.ReadFull(c, make([]byte, 1))
	seen = c.ConnectionState()
	raw.Close()
	return seen, <-done, clientErr
}

func trusting(ca *certstest.CA) *tls.Config {
	return &tls.Config{RootCAs: ca.Pool(), ServerName: "lbd.example"}
}

func TestListenerDefaults(t *testing.T) {
	ca := certstest.New(t, "ca")
	p := ca.Write(t, t.TempDir(), "lbd.example")
	l := listener(t, Files{Cert: p.Cert, Key: p.Key})
	client := trusting(ca)
	client.NextProtos = []string{"h2", "http/1.1"}
	seen, serverErr, err := handshake(t, l.Config(), client)
	if err != nil || serverErr != nil {
		t.Fatal(err, serverErr)
	}
	if seen.Version != tls.VersionTLS13 || seen.NegotiatedProtocol != "http/1.1" {
		t.Errorf("version %x, protocol %q; want TLS 1.3 and http/1.1", seen.Version, seen.NegotiatedProtocol)
	}
	client.MaxVersion = tls.VersionTLS12
	if _, _, err := handshake(t, l.Config(), client); err != nil {
		t.Errorf("TLS 1.2: %v", err)
	}
	client.MinVersion, client.MaxVersion = tls.VersionTLS10, tls.VersionTLS11
	if _, _, err := handshake(t, l.Config(), client); err == nil {
		t.Error("TLS 1.1 is spoken")
	}
	client = &tls.Config{RootCAs: ca.Pool(), ServerName: "lbd.example", NextProtos: []string{"h2"}}
	if _, _, err := handshake(t, l.Config(), client); err == nil {
		t.Error("a client that speaks only HTTP/2 is let in")
	}
	if at, ok := l.NotAfter(); !ok || time.Until(at) > 25*time.Hour || time.Until(at) < 20*time.Hour {
		t.Errorf("ends at %v, %v", at, ok)
	}
}

// Only clients with a certificate of the CA get in, and are asked again after the
// CA has changed: no session is resumed.
func TestClientCA(t *testing.T) {
	ca, other := certstest.New(t, "ca"), certstest.New(t, "other")
	p := ca.Write(t, t.TempDir(), "lbd.example")
	l := listener(t, Files{Cert: p.Cert, Key: p.Key, CA: p.CA})
	server := l.Config()
	with := func(from *certstest.CA) *tls.Config {
		c := trusting(ca)
		cert, err := tls.X509KeyPair(from.Issue(t, "client"))
		if err != nil {
			t.Fatal(err)
		}
		c.Certificates, c.ClientSessionCache = []tls.Certificate{cert}, tls.NewLRUClientSessionCache(8)
		return c
	}
	good, bad := with(ca), with(other)
	for range 2 {
		seen, serverErr, err := handshake(t, server, good)
		if err != nil || serverErr != nil || seen.DidResume {
			t.Fatal(err, serverErr, seen.DidResume)
		}
	}
	if _, serverErr, err := handshake(t, server, trusting(ca)); err == nil || serverErr == nil {
		t.Error("a client without a certificate is let in")
	}
	if _, serverErr, err := handshake(t, server, bad); err == nil || serverErr == nil {
		t.Error("a client of another CA is let in")
	}
	certstest.Put(t, p.CA, other.PEM)
	refreshed(t, l.state)
	if _, serverErr, _ := handshake(t, server, good); serverErr == nil {
		t.Error("the client of the old CA is let in after the CA was changed")
	}
	if _, serverErr, err := handshake(t, server, bad); serverErr != nil || err != nil {
		t.Error("the client of the new CA is not let in:", serverErr, err)
	}
}

func refreshed(t *testing.T, s *state) {
	t.Helper()
	changed, err := s.refresh()
	if err != nil || !changed {
		t.Fatalf("refresh: changed %v, %v", changed, err)
	}
	if again, err := s.refresh(); again || err != nil {
		t.Fatalf("refresh without a change: %v, %v", again, err)
	}
}

// A configuration that is in use shows the new certificate from the next handshake
// on, whichever way the file was replaced.
func TestRenewal(t *testing.T) {
	ca := certstest.New(t, "ca")
	ways := map[string]func(t *testing.T, p certstest.Paths, cert, key []byte){
		"renamed over": func(t *testing.T, p certstest.Paths, cert, key []byte) {
			certstest.Put(t, p.Cert, cert)
			certstest.Put(t, p.Key, key)
		},
		"in place": func(t *testing.T, p certstest.Paths, cert, key []byte) {
			for path, data := range map[string][]byte{p.Cert: cert, p.Key: key} {
				if err := os.WriteFile(path, data, 0o600); err != nil {
					t.Fatal(err)
				}
				if err := os.Chtimes(path, time.Time{}, time.Now().Add(time.Minute)); err != nil {
					t.Fatal(err) // a clock of coarse ticks may have stood still
				}
			}
		},
	}
	for name, replace := range ways {
		t.Run(name, func(t *testing.T) {
			p := ca.Write(t, t.TempDir(), "lbd.example")
			l := listener(t, Files{Cert: p.Cert, Key: p.Key})
			server := l.Config()
			before := serial(t, server, ca)
			cert, key := ca.Issue(t, "lbd.example")
			replace(t, p, cert, key)
			refreshed(t, l.state)
			if after := serial(t, server, ca); after == before {
				t.Error("the old certificate is still shown")
			}
		})
	}
}

// Files that are written again with what was in them are no change.
func TestWrittenAgain(t *testing.T) {
	ca := certstest.New(t, "ca")
	p := ca.Write(t, t.TempDir(), "lbd.example")
	l := listener(t, Files{Cert: p.Cert, Key: p.Key, CA: p.CA})
	for _, path := range []string{p.Cert, p.Key, p.CA} {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		certstest.Put(t, path, b)
		if changed, err := l.Refresh(); changed || err != nil {
			t.Errorf("%s: changed %v, %v", path, changed, err)
		}
	}
	certstest.Put(t, p.CA, certstest.New(t, "other").PEM)
	refreshed(t, l.state)
}

// Kubernetes swaps a symbolic link to the directory.
func TestRenewalBySymbolicLink(t *testing.T) {
	ca, dir := certstest.New(t, "ca"), t.TempDir()
	for _, d := range []string{"1", "2"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
		ca.Write(t, filepath.Join(dir, d), "lbd.example")
	}
	link := func(to string) {
		if err := os.Symlink(to, filepath.Join(dir, "new")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "data")); err != nil {
			t.Fatal(err)
		}
	}
	link("1")
	l := listener(t, Files{Cert: filepath.Join(dir, "data", "tls.crt"), Key: filepath.Join(dir, "data", "tls.key")})
	before := serial(t, l.Config(), ca)
	link("2")
	refreshed(t, l.state)
	if serial(t, l.Config(), ca) == before {
		t.Error("the old certificate is still shown")
	}
}

func serial(t *testing.T, server *tls.Config, ca *certstest.CA) string {
	t.Helper()
	seen, _, err := handshake(t, server, trusting(ca))
	if err != nil {
		t.Fatal(err)
	}
	return seen.PeerCertificates[0].SerialNumber.String()
}

// Half of a renewal, or rubbish, changes nothing, is told once, and is mended by
// the rest of it.
func TestBrokenRenewal(t *testing.T) {
	ca := certstest.New(t, "ca")
	p := ca.Write(t, t.TempDir(), "lbd.example")
	l := listener(t, Files{Cert: p.Cert, Key: p.Key})
	before := serial(t, l.Config(), ca)
	cert, key := ca.Issue(t, "lbd.example")
	broken := func(what string) {
		t.Helper()
		if changed, err := l.Refresh(); changed || err == nil {
			t.Errorf("%s: changed %v, %v", what, changed, err)
		} else if strings.Contains(err.Error(), "secret-marker") {
			t.Errorf("%s: the content is in the error: %v", what, err)
		}
		if changed, err := l.Refresh(); changed || err != nil {
			t.Errorf("%s is told again: %v, %v", what, changed, err)
		}
		if serial(t, l.Config(), ca) != before {
			t.Errorf("%s: another certificate is shown", what)
		}
	}
	certstest.Put(t, p.Cert, cert) // its key comes later
	broken("a certificate that does not fit the key")
	certstest.Put(t, p.Key, []byte("-----BEGIN PRIVATE KEY-----\nsecret-marker\n-----END PRIVATE KEY-----\n"))
	broken("a key that is none")
	if err := os.Remove(p.Key); err != nil {
		t.Fatal(err)
	}
	broken("a key that is gone")
	certstest.Put(t, p.Key, key)
	refreshed(t, l.state)
	if serial(t, l.Config(), ca) == before {
		t.Error("the renewal is complete, but the old certificate is shown")
	}
}

func TestFilesThatCannotBe(t *testing.T) {
	ca := certstest.New(t, "ca")
	p := ca.Write(t, t.TempDir(), "lbd.example")
	none := filepath.Join(t.TempDir(), "none")
	for _, c := range []struct {
		f    Files
		want string
	}{
		{Files{}, "no certificate; want one"},
		{Files{CA: p.CA}, "no certificate; want one"},
		{Files{Cert: p.Cert}, "want both"},
		{Files{Cert: none, Key: p.Key}, "none"},
		{Files{Cert: p.Cert, Key: none}, "none"},
		{Files{Cert: p.Cert, Key: p.Cert}, p.Cert},
		{Files{Cert: p.Cert, Key: p.Key, CA: none}, "none"},
		{Files{Cert: p.Cert, Key: p.Key, CA: p.Key}, "holds no certificate"},
	} {
		if _, err := NewListener(c.f); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v; want %q", c.f, err, c.want)
		}
	}
}

// The dialling side believes its CA and nobody else, for that name only.
func TestIdentity(t *testing.T) {
	ca, other := certstest.New(t, "ca"), certstest.New(t, "other")
	p := ca.Write(t, t.TempDir(), "vllm-1", "127.0.0.1")
	server := listener(t, Files{Cert: p.Cert, Key: p.Key}).Config()
	i := identity(t, Files{CA: p.CA}, false)
	for _, name := range []string{"vllm-1", "127.0.0.1"} {
		if _, _, err := handshake(t, server, i.Config(name)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"vllm-2", "127.0.0.2"} {
		var invalid x509.HostnameError
		if _, _, err := handshake(t, server, i.Config(name)); !errors.As(err, &invalid) {
			t.Errorf("%s: %v; want that the name is wrong", name, err)
		}
	}
	if _, _, err := handshake(t, server, identity(t, Files{}, false).Config("vllm-1")); err == nil {
		t.Error("the system's authorities vouch for it")
	}
	if _, _, err := handshake(t, server, identity(t, Files{}, true).Config("vllm-2")); err != nil {
		t.Errorf("insecure: %v", err)
	}
	certstest.Put(t, p.CA, other.PEM)
	refreshed(t, i.state)
	if _, _, err := handshake(t, server, i.Config("vllm-1")); err == nil {
		t.Error("the old CA is still believed")
	}
}

// To a replica that asks, lbd shows its certificate, and the renewed one later.
func TestIdentityShowsACertificate(t *testing.T) {
	ca := certstest.New(t, "ca")
	server, mine := ca.Write(t, t.TempDir(), "vllm-1"), ca.Write(t, t.TempDir(), "lbd")
	l := listener(t, Files{Cert: server.Cert, Key: server.Key, CA: server.CA}).Config()
	i := identity(t, Files{Cert: mine.Cert, Key: mine.Key, CA: mine.CA}, false)
	if _, serverErr, err := handshake(t, l, i.Config("vllm-1")); err != nil || serverErr != nil {
		t.Error(err, serverErr)
	}
	if _, serverErr, _ := handshake(t, l, identity(t, Files{CA: mine.CA}, false).Config("vllm-1")); serverErr == nil {
		t.Error("without a certificate it is let in: this proves nothing")
	}
	cert, key := ca.Issue(t, "lbd")
	certstest.Put(t, mine.Cert, cert)
	certstest.Put(t, mine.Key, key)
	refreshed(t, i.state)
	if _, serverErr, err := handshake(t, l, i.Config("vllm-1")); err != nil || serverErr != nil {
		t.Error(err, serverErr)
	}
}
