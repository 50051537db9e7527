package daemon_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"lbd/access/certs"
	"lbd/access/certs/certstest"
	"lbd/balancer"
	"lbd/bench/sim"
	"lbd/cmd/lbd/internal/config"
	"lbd/cmd/lbd/internal/daemon"
)

// front speaks TLS in front of a replica, as a server with --ssl-keyfile does, and
// returns its address.
func front(t *testing.T, r *sim.Server, f certs.Files) (addr string) {
	t.Helper()
	return frontThatSees(t, r, f, func(net.Conn) {})
}

// frontThatSees is front that shows each connection to see.
func frontThatSees(t *testing.T, r *sim.Server, f certs.Files, see func(net.Conn)) (addr string) {
	t.Helper()
	l, err := certs.NewListener(f)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", l.Config())
	if err != nil {
		t.Fatal(err)
	}
	var open sync.WaitGroup
	conns := make(chan net.Conn, 1024)
	open.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns <- c
			open.Go(func() { see(c); passOn(c, r.Addr()) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		for len(conns) > 0 {
			(<-conns).Close()
		}
		open.Wait()
	})
	return ln.Addr().String()
}

func passOn(c net.Conn, to string) {
	defer c.Close()
	up, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer up.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		io.Copy(up, c)
		up.Close()
	}()
	io.Copy(c, up)
	c.Close()
	<-done
}

// over makes the client of a test speak TLS to lbd.
func (p *proxied) over(c *tls.Config) *proxied {
	q := *p
	q.url = "https://" + p.Addr().String()
	q.http = &http.Client{Transport: &http.Transport{TLSClientConfig: c, DisableKeepAlives: true}}
	return &q
}

// admin is a client of the admin listener.
func (p *proxied) admin(c *tls.Config) *proxied {
	q := p.over(c)
	q.url = strings.Replace(q.url, p.Addr().String(), p.AdminAddr().String(), 1)
	return q
}

// Probes and polls reach a replica in TLS, with the CA and the certificate that it
// wants, and not without.
func TestReplicaInTLS(t *testing.T) {
	ca := certstest.New(t, "ca")
	server, mine := ca.Write(t, t.TempDir(), "127.0.0.1"), ca.Write(t, t.TempDir(), "lbd")
	r := replica(t, sim.Config{})
	addr := front(t, r, certs.Files{Cert: server.Cert, Key: server.Key, CA: server.CA})
	url := []string{"https://" + addr}
	p := lbd(t, url, "upstream-tls-ca-file", mine.CA, "upstream-tls-cert-file", mine.Cert, "upstream-tls-key-file", mine.Key)
	s := p.Snapshot().Replica(addr)
	if s == nil || !s.Endpoint.TLS || len(s.Models) != 1 {
		t.Fatalf("%+v", s)
	}
	p.until("polled", func() bool { return s.Polled() != nil })
	// From the second request on the connection to the replica is one that was kept.
	for i := range 10 {
		a := p.post("/v1/chat/completions", chat(llama, i%3 == 2, 2))
		if a.status != 200 || a.err != nil || !strings.Contains(a.body, "choices") {
			t.Fatalf("request %d: %d %s, %v", i, a.status, a.body, a.err)
		}
	}
	if n := p.metric(`lbd_upstream_errors_total{reason="bad_response",replica="` + addr + `"}`); n != "" && n != "0" {
		t.Errorf("%s malformed answers", n)
	}
	for name, settings := range map[string][]string{
		"no CA":            {},
		"no certificate":   {"upstream-tls-ca-file", mine.CA},
		"the wrong name":   {"upstream-tls-ca-file", mine.CA, "upstream-tls-cert-file", mine.Cert, "upstream-tls-key-file", mine.Key, "upstream-tls-server-name", "other"},
		"insecure, no own": {"upstream-tls-insecure-skip-verify", "true"},
	} {
		t.Run(name, func(t *testing.T) {
			p := lbdLater(t, url, settings...)
			p.until("known to be down", func() bool {
				return len(p.log.logged("replica down"))+len(p.log.logged("replica ejected")) > 0
			})
			if len(p.Snapshot().Replica(addr).Models) > 0 {
				t.Error("it was learned")
			}
			if loud := strings.Contains(p.log.String(), "INSECURE"); loud != strings.HasPrefix(name, "insecure") {
				t.Errorf("warned of no check: %v", loud)
			}
		})
	}
}

// A new certificate is shown to replicas without a reload, also by polls, whose
// connection is never idle for long.
func TestPollsShowTheNewCertificate(t *testing.T) {
	ca := certstest.New(t, "ca")
	server, mine := ca.Write(t, t.TempDir(), "127.0.0.1"), ca.Write(t, t.TempDir(), "lbd")
	var shown sync.Map // serial numbers
	r := replica(t, sim.Config{})
	addr := frontThatSees(t, r, certs.Files{Cert: server.Cert, Key: server.Key, CA: server.CA}, func(c net.Conn) {
		if c := c.(*tls.Conn); c.Handshake() == nil {
			shown.Store(c.ConnectionState().PeerCertificates[0].SerialNumber.String(), true)
		}
	})
	p := lbd(t, []string{"https://" + addr}, "upstream-tls-ca-file", mine.CA, "upstream-tls-cert-file", mine.Cert, "upstream-tls-key-file", mine.Key,
		"health-interval", "1h", "models-poll-interval", "1h")
	p.until("polled", func() bool { return p.Snapshot().Replica(addr).Polled() != nil })
	cert, key := ca.Issue(t, "lbd")
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	certstest.Put(t, mine.Cert, cert)
	certstest.Put(t, mine.Key, key)
	p.until("the new certificate shown", func() bool {
		_, ok := shown.Load(pair.Leaf.SerialNumber.String())
		return ok
	})
}

// Replicas that are pinned may each have their own way.
func TestReplicasOwnTLS(t *testing.T) {
	ca, other := certstest.New(t, "ca"), certstest.New(t, "other")
	a, b := ca.Write(t, t.TempDir(), "127.0.0.1"), other.Write(t, t.TempDir(), "vllm-b")
	ra, rb, rc := replica(t, sim.Config{APIKey: "key-of-a"}), replica(t, sim.Config{APIKey: "key-of-b"}), replica(t, sim.Config{APIKey: "common"})
	keyOfB := filepath.Join(t.TempDir(), "key")
	write(t, keyOfB, "key-of-b\n")
	t.Setenv("KEY_OF_A", "key-of-a")
	yaml := fmt.Sprintf(`
upstream_api_key: common
upstream_tls_ca_file: %s
models:
  - name: %s
    replicas:
      - {url: "https://%s", api_key_env: KEY_OF_A}
      - {url: "https://%s", api_key_file: %s, tls_ca_file: %s, tls_server_name: vllm-b}
      - {url: "%s"}
`, a.CA, llama, front(t, ra, certs.Files{Cert: a.Cert, Key: a.Key}), front(t, rb, certs.Files{Cert: b.Cert, Key: b.Key}), keyOfB, b.CA, rc.URL())
	path := filepath.Join(t.TempDir(), "lbd.yml")
	write(t, path, yaml)
	p := lbdWithEnviron(t, path)
	p.until("all learned, with their own keys", func() bool {
		for _, r := range p.Snapshot().Replicas {
			if !r.Available() || r.Models == nil || r.Health.State != balancer.Healthy {
				return false
			}
		}
		return len(p.Snapshot().Replicas) == 3
	})
	for r, want := range map[*sim.Server]string{ra: "Bearer key-of-a", rb: "Bearer key-of-b", rc: "Bearer common"} {
		for _, q := range r.Requests() {
			if got := q.Header.Get("Authorization"); got != want {
				t.Errorf("%s %s was sent %q; want %q", r.Addr(), q.Path, got, want)
			}
		}
	}
	for _, key := range []string{"key-of-a", "key-of-b", "common"} {
		if strings.Contains(p.log.String(), `"`+key) || strings.Contains(p.onAdmin("GET", "/config", "").body, `"`+key) {
			t.Errorf("%s is shown", key)
		}
	}
}

// lbdWithEnviron starts an lbd with a file that names variables.
func lbdWithEnviron(t *testing.T, path string) *proxied {
	t.Helper()
	load := func() (*config.Config, error) {
		return config.Load(config.Options{ReadFile: os.ReadFile, Environ: append(os.Environ(),
			"LBD_CONFIG="+path, "LBD_LISTEN=127.0.0.1:0", "LBD_ADMIN_LISTEN=127.0.0.1:0", "LBD_HEALTH_INTERVAL=50ms",
			"LBD_METRICS_POLL_INTERVAL=50ms", "LBD_MODELS_POLL_INTERVAL=200ms", "LBD_LOG_LEVEL=debug")})
	}
	return lbdFrom(t, load)
}

func TestAdminListenerInTLSWithToken(t *testing.T) {
	ca := certstest.New(t, "ca")
	paths := ca.Write(t, t.TempDir(), "127.0.0.1")
	token := filepath.Join(t.TempDir(), "token")
	write(t, token, "first-admin-token\n")
	r := replica(t, sim.Config{})
	p := lbd(t, urls(r), "admin-tls-cert-file", paths.Cert, "admin-tls-key-file", paths.Key, "admin-token-file", token)
	client := p.admin(&tls.Config{RootCAs: ca.Pool()})
	if got := client.get("/fleet"); got.status != 401 {
		t.Errorf("without a token: %d", got.status)
	}
	if got := client.get("/fleet", "Authorization", "Bearer first-admin-token"); got.status != 200 {
		t.Errorf("with the token: %d %v", got.status, got.err)
	}
	write(t, token, "second-admin-token\n")
	if got := client.do("POST", "/reload", "", "Authorization", "Bearer first-admin-token"); got.status != 200 {
		t.Fatalf("reload: %d %s", got.status, got.body)
	}
	if got := client.get("/fleet", "Authorization", "Bearer first-admin-token"); got.status != 401 {
		t.Errorf("with the old token: %d", got.status)
	}
	if got := client.get("/config", "Authorization", "Bearer second-admin-token"); got.status != 200 || strings.Contains(got.body, "second-admin-token") {
		t.Errorf("with the new token: %d %s", got.status, got.body)
	}
	before := shownBy(t, p.AdminAddr().String(), ca)
	ca.Write(t, filepath.Dir(paths.Cert), "127.0.0.1")
	p.until("the renewed certificate is shown", func() bool { return shownBy(t, p.AdminAddr().String(), ca) != before })
	plain := *p
	plain.url = "http://" + p.AdminAddr().String()
	if got := plain.get("/fleet", "Authorization", "Bearer second-admin-token"); got.status == 200 {
		t.Error("it answers in plain text as well")
	}
}

// shownBy returns the serial number of the certificate that a listener shows.
func shownBy(t *testing.T, addr string, ca *certstest.CA) string {
	t.Helper()
	c, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: ca.Pool()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// lbd does not start with an admin listener that others can reach without proof.
func TestExposedAdminListenerIsRefused(t *testing.T) {
	for _, c := range []struct {
		settings []string
		refused  bool
	}{
		{[]string{"admin-listen", "0.0.0.0:0"}, true},
		{[]string{"admin-listen", ":0"}, true},
		{[]string{"admin-listen", ":0", "admin-token", "some-admin-token"}, false},
	} {
		cfg := load(t, []string{"http://127.0.0.1:1"}, c.settings...)
		d, err := daemon.New(cfg, daemon.Options{})
		if err == nil {
			err = d.Start()
			d.Stop(t.Context())
		}
		if (err != nil) != c.refused || err != nil && !strings.Contains(err.Error(), "admin_token") {
			t.Errorf("%q: %v", c.settings, err)
		}
	}
}
