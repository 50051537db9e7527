package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHealthCommand(t *testing.T) {
	status := http.StatusOK
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/health" {
			t.Errorf("asked for %s; want /health", r.URL.Path)
		}
		w.WriteHeader(status)
		w.Write([]byte(`{"status":"x"}`))
	}))
	defer s.Close()
	defer http.DefaultClient.CloseIdleConnections()
	var out, errs strings.Builder
	if code := run(t.Context(), []string{"health", "--url", s.URL + "/health"}, &out, &errs); code != 0 || !strings.Contains(out.String(), "status") {
		t.Errorf("exit %d, %q, %q; want 0 and the page", code, out.String(), errs.String())
	}
	status = http.StatusServiceUnavailable
	if code := run(t.Context(), []string{"health", "--url", s.URL + "/health"}, &out, &errs); code != 1 || !strings.Contains(errs.String(), "503") {
		t.Errorf("exit %d, %q; want 1 and the status", code, errs.String())
	}
	errs.Reset()
	if code := run(t.Context(), []string{"health", "--url", "http://127.0.0.1:1/health"}, &out, &errs); code != 1 || !strings.Contains(errs.String(), "no answer") {
		t.Errorf("exit %d, %q; want 1 and no answer", code, errs.String())
	}
}

func TestOwnHealthURL(t *testing.T) {
	for listen, want := range map[string]string{
		"":               "http://127.0.0.1:8080/health",
		":9000":          "http://127.0.0.1:9000/health",
		"0.0.0.0:9000":   "http://127.0.0.1:9000/health",
		"[::]:9000":      "http://127.0.0.1:9000/health",
		"10.0.0.1:80":    "http://10.0.0.1:80/health",
		"no-port-at-all": "http://127.0.0.1:8080/health",
	} {
		if got := ownHealthURL(listen, true); got != strings.Replace(want, "http", "https", 1) {
			t.Errorf("%q in TLS: %s", listen, got)
		}
		if got := ownHealthURL(listen, false); got != want {
			t.Errorf("%q: %s; want %s", listen, got, want)
		}
	}
}

// The health check of a container finds the lbd beside it: the file and the
// environment are the same for both.
func TestHealthFindsTheListener(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("here")) }))
	defer s.Close()
	defer http.DefaultClient.CloseIdleConnections()
	address := strings.TrimPrefix(s.URL, "http://")
	file := write(t, "endpoints: [http://a.example.org]\nlisten: "+address+"\n")
	if got := lbd(t, "health", "--config", file); got.code != 0 || got.stdout != "here\n" {
		t.Errorf("--config: %+v", got)
	}
	if got := lbd(t, "health", "--config", file+"x"); got.code != exitUsage || !strings.Contains(got.stderr, "open "+file+"x: no such file") {
		t.Errorf("--config that is not there: %+v", got)
	}
	for _, url := range []string{"foo", "127.0.0.1:8080", "ftp://a/", "http://"} {
		if got := lbd(t, "health", "--url", url); got.code != exitUsage || !strings.Contains(got.stderr, "is not a URL; want http://host:port/health") {
			t.Errorf("--url %s: %+v", url, got)
		}
	}
	t.Setenv("LBD_CONFIG", file)
	if got := lbd(t, "health"); got.code != 0 || got.stdout != "here\n" {
		t.Errorf("LBD_CONFIG: %+v", got)
	}
	t.Setenv("LBD_CONFIG", "") // no replicas: not a configuration, but the address is known
	t.Setenv("LBD_LISTEN", address)
	if got := lbd(t, "health"); got.code != 0 || got.stdout != "here\n" {
		t.Errorf("LBD_LISTEN: %+v", got)
	}
}

// The lbd beside it may speak TLS, under a name that is not the address asked.
func TestHealthInTLS(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("here")) }))
	defer s.Close()
	file := write(t, "endpoints: [http://a.example.org]\ntls_cert_file: x\ntls_key_file: y\nlisten: "+strings.TrimPrefix(s.URL, "https://")+"\n")
	if got := lbd(t, "health", "--config", file); got.code != 0 || got.stdout != "here\n" {
		t.Errorf("%+v", got)
	}
	if got := lbd(t, "health", "--url", s.URL); got.code != 1 || !strings.Contains(got.stderr, "certificate") {
		t.Errorf("another server's certificate is not checked: %+v", got)
	}
}
