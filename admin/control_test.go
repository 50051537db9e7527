package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"lbd/balancer"
)

// echo answers with what it was sent.
func echo(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "text/x-echo")
	w.WriteHeader(http.StatusTeapot)
	fmt.Fprintf(w, "%s %s host=%s type=%q accept=%q auth=%q length=%d body=%s", r.Method, r.RequestURI, r.Host,
		r.Header.Get("Content-Type"), r.Header.Get("Accept"), r.Header.Get("Authorization"), r.ContentLength, body)
}

func TestControlCallIsPassedThrough(t *testing.T) {
	url, id := newReplica(t, echo)
	s := start(t, Options{Fleet: newFleet(t, url+"/base"), ReplicaAPIKey: "key"})
	got := s.do("POST", "/replicas/"+id+"/base/v1/load_lora_adapter?a=%20b&model=x&a=c", `{"lora_name":"l"}`,
		"Content-Type", "application/json", "Authorization", "Bearer of-the-operator")
	want := "POST /base/v1/load_lora_adapter?a=%20b&model=x&a=c host=" + id +
		` type="application/json" accept="" auth="Bearer key" length=17 body={"lora_name":"l"}`
	if got.status != http.StatusTeapot || got.body != want || got.header.Get("Content-Type") != "text/x-echo" {
		t.Errorf("%d %q\n%s\nwant\n%s", got.status, got.header.Get("Content-Type"), got.body, want)
	}
	s.SetReplicaAPIKey("")
	wantContains(t, s.do("POST", "/replicas/"+id+"/base/sleep?level=1", "").body, "POST /base/sleep?level=1 ", `auth=""`, "length=0")
	log := s.log.String()
	wantContains(t, log, `"path":"/v1/load_lora_adapter","replicas":["`+id+`/base"],"statuses":[418]`)
	for _, secret := range []string{"lora_name", "Bearer", "key"} {
		if strings.Contains(log, secret) {
			t.Errorf("%q is in the log: %s", secret, log)
		}
	}
}

// A control call reaches the server that requests go to, whatever the system's resolver
// would make of its name.
func TestControlCallDialsAsRequestsDo(t *testing.T) {
	url, addr := newReplica(t, echo)
	asked := make(chan string, 2)
	s := start(t, Options{
		Fleet: newFleet(t, "http://vllm-1.invalid:8000"),
		Dial: func(ctx context.Context, network, host string) (net.Conn, error) {
			asked <- host
			if _, bounded := ctx.Deadline(); !bounded {
				t.Error("nothing bounds the connect")
			}
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
	})
	got := s.do("POST", "/replicas/vllm-1.invalid:8000/sleep", "")
	if got.status != http.StatusTeapot || !strings.Contains(got.body, "host=vllm-1.invalid:8000") {
		t.Fatalf("%d %s; want the answer of %s", got.status, got.body, url)
	}
	if host := <-asked; host != "vllm-1.invalid:8000" {
		t.Errorf("dialled %q", host)
	}
}

// Every control path is offered under its own method only, on one replica and on
// the fleet.
func TestEveryControlPath(t *testing.T) {
	url, id := newReplica(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Method, " ", r.URL.Path) })
	s := start(t, Options{Fleet: newFleet(t, url)})
	for path, method := range controls {
		a := s.do(method, "/replicas/"+id+"/"+path, "")
		if a.status != 200 || a.body != method+" /"+path {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
		if a := s.do(method, "/fleet/"+path, ""); a.status != 200 || !strings.Contains(a.body, method+" /"+path) {
			t.Errorf("fleet: %s: %d %s", path, a.status, a.body)
		}
		wrong, allow := "GET", "POST"
		if method == "GET" {
			wrong, allow = "POST", "GET, HEAD"
		}
		for _, at := range []string{"/replicas/" + id + "/", "/fleet/"} {
			a := s.do(wrong, at+path, "")
			wantError(t, a, 405, "method_not_allowed")
			if a.header.Get("Allow") != allow {
				t.Errorf("%s %s%s: Allow %q", wrong, at, path, a.header.Get("Allow"))
			}
		}
	}
}

func TestUnknownControlPathNamesThoseKnown(t *testing.T) {
	asked := false
	url, id := newReplica(t, func(http.ResponseWriter, *http.Request) { asked = true })
	s := start(t, Options{Fleet: newFleet(t, url)})
	for _, path := range []string{"/fleet/v1/completions", "/fleet/", "/fleet/sleep/..%2Fv1", "/replicas/" + id + "/v1/completions", "/replicas/" + id + "/drain/sleep"} {
		msg := wantError(t, s.do("POST", path, "{}"), 404, "unknown_control_path")
		wantContains(t, msg, "sleep, ", "v1/load_lora_adapter")
	}
	if asked {
		t.Error("a path that is no control path reached the replica")
	}
}

func TestReadsAreNotLogged(t *testing.T) {
	url, id := newReplica(t, echo)
	s := start(t, Options{Fleet: newFleet(t, url)})
	s.get("/replicas/" + id + "/is_sleeping")
	s.get("/fleet/is_sleeping")
	if s.log.String() != "" {
		t.Error(s.log.String())
	}
}

func TestControlBodyOverTheLimit(t *testing.T) {
	asked := false
	url, id := newReplica(t, func(http.ResponseWriter, *http.Request) { asked = true })
	s := start(t, Options{Fleet: newFleet(t, url)})
	body := strings.Repeat("x", maxControlBody+1)
	for _, path := range []string{"/replicas/" + id + "/collective_rpc", "/fleet/collective_rpc"} {
		wantError(t, s.do("POST", path, body), 413, "request_too_large")
	}
	if asked {
		t.Error("a body over the limit reached the replica")
	}
}

func TestReplicaIsDown(t *testing.T) {
	url, id := deadURL, deadID
	s := start(t, Options{Fleet: newFleet(t, url)})
	wantContains(t, wantError(t, s.do("POST", "/replicas/"+id+"/sleep", ""), 502, "replica_error"), id, "connection refused")
	wantContains(t, s.log.String(), `"statuses":[0]`)
}

// A redirect is an answer, not an order: calls go where the configuration says.
func TestRedirectsAreNotFollowed(t *testing.T) {
	_, other := newReplica(t, func(http.ResponseWriter, *http.Request) { t.Error("the redirect was followed") })
	url, id := newReplica(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://"+other+"/sleep", http.StatusTemporaryRedirect)
	})
	s := start(t, Options{Fleet: newFleet(t, url)})
	if a := s.do("POST", "/replicas/"+id+"/sleep", ""); a.status != 307 || a.header.Get("Location") != "" {
		t.Errorf("answer %d %v", a.status, a.header)
	}
}

// An answer that breaks off at the replica must not look whole here.
func TestTruncatedAnswerStaysTruncated(t *testing.T) {
	for name, length := range map[string]string{"chunked": "", "with a length": "1000"} {
		url, id := newReplica(t, func(w http.ResponseWriter, _ *http.Request) {
			if length != "" {
				w.Header().Set("Content-Length", length)
			}
			fmt.Fprint(w, "half of it")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		})
		s := start(t, Options{Fleet: newFleet(t, url)})
		resp, err := client.Get("http://" + s.Addr().String() + "/replicas/" + id + "/metrics")
		if err != nil {
			continue // broken off before the head: seen as well
		}
		_, err = io.ReadAll(resp.Body)
		resp.Body.Close()
		if err == nil {
			t.Errorf("%s: the answer looks whole", name)
		}
	}
}

func TestCallEndsWhenTheCallerLeaves(t *testing.T) {
	for _, path := range []string{"/replicas/ID/sleep", "/fleet/sleep"} {
		came, left := make(chan struct{}), make(chan struct{})
		url, id := newReplica(t, func(_ http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body) // or the server does not look whether its client leaves
			close(came)
			<-r.Context().Done()
			close(left)
		})
		s := start(t, Options{Fleet: newFleet(t, url)})
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			<-came
			cancel()
		}()
		req, err := http.NewRequestWithContext(ctx, "POST", "http://"+s.Addr().String()+strings.Replace(path, "ID", id, 1), strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Do(req); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		<-left
	}
}

// transport stands in for the network.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func hang(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func TestReplicaThatNeverAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{Fleet: newFleet(t, "http://a:1")})
		defer s.Stop(t.Context())
		s.client.Transport = transport(hang)
		for path, wants := range map[string][]string{
			"/replicas/a:1/sleep": {`"code": "timeout"`, "5m0s"},
			"/fleet/sleep":        {`"error": "no answer within 5m0s"`, `"status": null`, `"duration_ms": 300000`},
		} {
			w := httptest.NewRecorder()
			s.mux().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "POST", path, nil))
			wantContains(t, w.Body.String(), wants...)
			if want := map[bool]int{true: 502, false: 504}[strings.HasPrefix(path, "/fleet")]; w.Code != want {
				t.Errorf("%s: %d; want %d", path, w.Code, want)
			}
		}
	})
}

func TestEndpointWithEscapesInItsBasePath(t *testing.T) {
	url, id := newReplica(t, echo)
	s := start(t, Options{Fleet: newFleet(t, url+"/a%20b")})
	wantContains(t, s.do("POST", "/replicas/"+id+"/a%20b/sleep", "").body, "POST /a%20b/sleep ")
}

func TestSendKeepsTheHostHeaderOfTheEndpoint(t *testing.T) {
	s := New(Options{Fleet: newFleet(t)})
	var seen *http.Request
	s.client.Transport = transport(func(r *http.Request) (*http.Response, error) { seen = r; return nil, errors.New("enough") })
	e, err := balancer.ParseEndpoint("http://vllm-1")
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.send(t.Context(), balancer.NewReplica(e, "", 1), &call{method: "GET", path: "load"})
	if err == nil || seen.Host != "vllm-1" || seen.URL.Host != "vllm-1:80" {
		t.Errorf("host %q, dialled %q, %v", seen.Host, seen.URL.Host, err)
	}
}
