package poll

import (
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lbd/balancer"
	"lbd/internal/loopback"
)

// unstarted is a server of this process's own loopback address.
func unstarted(t testing.TB, h http.Handler) *httptest.Server {
	t.Helper()
	l := loopback.Listen(t)
	return &httptest.Server{Listener: l, Config: &http.Server{Handler: h}}
}

// vllmServer replays an exposition as the given generation serves it.
type vllmServer struct {
	*httptest.Server
	v0    bool // multiprocess: name[] gives an empty page
	page  atomic.Pointer[string]
	conns atomic.Int64
	// during is called within each request; nil = nothing is
	during atomic.Pointer[func()]
	mu     sync.Mutex
	paths  []string
}

func serve(t testing.TB, file string, v0 bool) *vllmServer {
	s := &vllmServer{v0: v0}
	text := golden(t, file)
	s.page.Store(&text)
	s.Server = unstarted(t, s)
	s.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			s.conns.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	return s
}

func (s *vllmServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.paths = append(s.paths, r.URL.Path)
	s.mu.Unlock()
	if f := s.during.Load(); f != nil {
		(*f)()
	}
	names := r.URL.Query()["name[]"]
	switch {
	case r.Header.Get("Accept-Encoding") != "identity" || strings.Contains(r.Header.Get("Accept"), "openmetrics"):
		http.Error(w, "what was asked for is not what is read", http.StatusNotAcceptable)
	case r.URL.Path == "/v1/models":
		if r.Header.Get("Authorization") != "Bearer k" {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"error":"Unauthorized"}`)
			return
		}
		_, _ = io.WriteString(w, listM)
	case r.URL.Path == "/metrics/" && len(names) > 0:
		if !s.v0 {
			_, _ = io.WriteString(w, filter(*s.page.Load(), names))
		}
	case r.URL.Path == "/metrics" || r.URL.Path == "/metrics/" && s.v0:
		_, _ = io.WriteString(w, *s.page.Load())
	default:
		http.NotFound(w, r)
	}
}

// filter is client_python's restricted_registry for exact sample names.
func filter(text string, names []string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		name := line[:strings.IndexAny(line, "{ ")]
		if slices.Contains(names, name) {
			b.WriteString(line)
		}
	}
	return b.String()
}

func (s *vllmServer) took() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.paths
	s.paths = nil
	return p
}

// pollOnce polls all replicas of the fleet once, without a clock.
func pollOnce(p *Poller) {
	cfg := p.config.Load()
	p.sync()
	for _, t := range *p.targets.Load() {
		p.startPoll(t, cfg)
	}
	p.wg.Wait()
}

// stopped returns a poller whose tick is driven by the test.
func stopped(t testing.TB, f *testFleet, cfg Config, onEvent func(Event)) *Poller {
	p := New(cfg, f, Options{OnEvent: onEvent})
	p.ctx, p.cancel = t.Context(), func() {}
	t.Cleanup(p.Stop)
	return p
}

func TestBothGenerationsOverHTTP(t *testing.T) {
	v1, v0 := serve(t, "v0.19.txt", false), serve(t, "v0.6.4.txt", true)
	f := newTestFleet(t, v1.URL, v0.URL)
	p := stopped(t, f, Config{APIKey: "k", Timeout: time.Minute}, nil)
	for range 3 {
		pollOnce(p)
	}
	v19, v064 := f.Snapshot().Replicas[0], f.Snapshot().Replicas[1]
	if s := v19.Polled().Sample; s.Running != k(2) || s.KVUsage != k(0.0023456789) || s.PrefixHits != k(5120) || s.StartTime != k(1.79528186236e+09) {
		t.Errorf("v0.19: %+v", s)
	}
	if s := v064.Polled().Sample; s.Running != k(3) || s.Waiting != k(7) || s.KVUsage != k(0.12345678901234568) || s.PrefixHits.Known || s.StartTime.Known {
		t.Errorf("v0.6.4: %+v", s)
	}
	if got := v1.took(); !slices.Equal(got, []string{"/metrics/", "/metrics/", "/metrics/"}) {
		t.Errorf("v0.19 was asked for %q", got)
	}
	if got := v0.took(); !slices.Equal(got, []string{"/metrics/", "/metrics", "/metrics", "/metrics"}) {
		t.Errorf("v0.6.4 was asked for %q", got)
	}
	if n := v1.conns.Load(); n != 1 {
		t.Errorf("%d connections for three polls, want one that persists", n)
	}
	p.learnWanted(false)
	p.wg.Wait()
	for _, r := range f.Snapshot().Replicas {
		if names, _ := f.learned(r.ID); names != "m" {
			t.Errorf("%s: learned %q", r.ID, names)
		}
	}
}

// A connection in TLS was made by certain rules. Others end it, also one that is in use
// when they come; a reload alone does not.
func TestRenew(t *testing.T) {
	s := serve(t, "v0.19.txt", false)
	p := stopped(t, newTestFleet(t, s.URL), Config{APIKey: "k", Timeout: time.Minute}, nil)
	conns := func(what string, want int64) {
		t.Helper()
		pollOnce(p)
		if n := s.conns.Load(); n != want {
			t.Errorf("%s: %d connections; want %d", what, n, want)
		}
	}
	conns("a poll", 1)
	p.SetConfig(Config{APIKey: "k", Timeout: time.Minute})
	conns("a reload and a poll", 1)
	p.Renew()
	conns("other rules and a poll", 2)
	during := func() { p.Renew() }
	s.during.Store(&during)
	conns("other rules during a poll", 2)
	s.during.Store(nil)
	conns("and one behind it", 3)
}

func TestConnectionsEndBeforeUvicornEndsThem(t *testing.T) {
	tr := newHTTPFetcher(nil, nil).client.Load().Transport.(*http.Transport)
	if tr.IdleConnTimeout <= 0 || tr.IdleConnTimeout >= 5*time.Second || !tr.DisableCompression || tr.Proxy != nil {
		t.Errorf("transport %+v", tr)
	}
}

func TestWrongKeyIsSaid(t *testing.T) {
	s := serve(t, "v0.19.txt", false)
	f := newTestFleet(t, s.URL)
	events := make(chan Event, 4)
	p := stopped(t, f, Config{APIKey: "wrong", Timeout: time.Minute}, func(e Event) { events <- e })
	p.sync()
	p.learnWanted(false)
	p.wg.Wait()
	if e := <-events; e.Kind != ModelsFailed || !strings.Contains(e.Reason, "401") {
		t.Errorf("event %+v", e)
	}
}

// The base URL of OpenAI's clients, which ends in /v1, is no endpoint.
func TestEndpointWithV1IsSaid(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(s.Close)
	f := newTestFleet(t, s.URL+"/llama/v1", s.URL+"/llama")
	reasons := map[string]string{}
	var mu sync.Mutex
	p := stopped(t, f, Config{Timeout: time.Minute}, func(e Event) {
		mu.Lock()
		defer mu.Unlock()
		reasons[e.Replica] = e.Reason
	})
	p.sync()
	p.learnWanted(false)
	p.wg.Wait()
	host := strings.TrimPrefix(s.URL, "http://")
	want := map[string]string{
		host + "/llama/v1": `/v1/models: status 404 at "` + s.URL + `/llama/v1/v1/models"; want the endpoint without /v1, which the paths of requests have`,
		host + "/llama":    "/v1/models: status 404",
	}
	if diff := cmp.Diff(want, reasons); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestBrokenAnswersAreFailures(t *testing.T) {
	handlers := map[string]http.HandlerFunc{
		"too large": func(w http.ResponseWriter, _ *http.Request) {
			line := []byte("vllm:num_requests_running 1\n" + strings.Repeat("#", 1<<16) + "\n")
			for range maxPage/len(line) + 2 {
				if _, err := w.Write(line); err != nil {
					return
				}
			}
		},
		"cut": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = io.WriteString(w, "vllm:num_requests_running 1\n")
		},
		"compressed": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = io.WriteString(z, "vllm:num_requests_running 1\n")
			z.Close()
		},
		"a gigabyte": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(1<<30))
			page := []byte(golden(t, "v0.19.txt"))
			for sent := 0; sent < 1<<30; sent += len(page) {
				if _, err := w.Write(page); err != nil {
					if sent > 2*maxPage+64<<20 { // and what sockets hold
						t.Errorf("%d bytes were taken in", sent)
					}
					return
				}
			}
			t.Error("all of it was taken in")
		},
		"never ends": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = io.WriteString(w, "vllm:num_requests_running 1\n")
				w.(http.Flusher).Flush()
				time.Sleep(time.Millisecond)
			}
		},
		"endless head": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 2*maxHead))
			_, _ = io.WriteString(w, "vllm:num_requests_running 1\n")
		},
		"aborted": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"error":   func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "dead", 500) },
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		},
	}
	for name, h := range handlers {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(h)
			defer s.Close()
			f := newTestFleet(t, s.URL)
			cfg := Config{Timeout: time.Minute}
			if name == "never ends" {
				cfg.Timeout = 200 * time.Millisecond
			}
			p := stopped(t, f, cfg, nil)
			pollOnce(p)
			id := f.Snapshot().Replicas[0].ID
			if n := p.Failures(id); n != 1 {
				t.Errorf("%d failures, want 1", n)
			}
			if f.replica(id).Polled() != nil {
				t.Error("something was published")
			}
		})
	}
}

// A page nobody can parse as a whole still gives what can be read.
func TestPageWithBrokenLines(t *testing.T) {
	s := serve(t, "v0.19.txt", true)
	page := "\x00\xff{{{\n# TYPE vllm:num_requests_running histogram\n" + golden(t, "v0.19.txt") + "vllm:num_requests_swapped{a=\"} 1\ntail"
	s.page.Store(&page)
	if _, ok := oracle(page); ok {
		t.Fatal("expfmt reads the page: it shows nothing")
	}
	f := newTestFleet(t, s.URL)
	p := stopped(t, f, Config{Timeout: time.Minute}, nil)
	pollOnce(p)
	if r := f.Snapshot().Replicas[0].Polled(); r == nil || r.Running != k(2) || r.GenerationTokens != k(4096) {
		t.Errorf("polled %+v", r)
	}
}

// eventually waits for what must happen; nothing is asserted about how soon it does.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: it did not happen", what)
		}
	}
}

// A replica that hangs, one that is gone and one that works, then a restart in
// place, with the real clock and nothing measured.
func TestHangingGoneAndRestarted(t *testing.T) {
	release := make(chan struct{})
	hangs := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	gone := unstarted(t, http.NotFoundHandler())
	gone.Start()
	gone.Close()
	works := serve(t, "v0.19.txt", false)
	f := newTestFleet(t, hangs.URL, gone.URL, works.URL)
	id := func(i int) string { return f.Snapshot().Replicas[i].ID }
	var events sync.Map // Event without its reason -> true
	told := func(k Kind, i int) bool {
		_, ok := events.Load(Event{Kind: k, Replica: id(i)})
		return ok
	}
	p := New(Config{Interval: 10 * time.Millisecond, Timeout: 30 * time.Millisecond, APIKey: "k"}, f, Options{OnEvent: func(e Event) {
		events.Store(Event{Kind: e.Kind, Replica: e.Replica}, true)
	}})
	p.Start()
	eventually(t, "the failures are told", func() bool { return told(Failed, 0) && told(Failed, 1) })
	eventually(t, "the third is polled", func() bool { return f.Snapshot().Replicas[2].Polled() != nil })
	younger := strings.ReplaceAll(golden(t, "v0.19.txt"), "1.79528186236e+09", "1.79528200000e+09")
	works.page.Store(&younger)
	eventually(t, "the restart is told", func() bool { return told(Restarted, 2) })
	if told(Restarted, 0) || told(Restarted, 1) {
		t.Error("another one restarted")
	}
	p.Stop()
	close(release)
	hangs.Close()
}

// The bar: 64 replicas a second under 1 % of a core, 10 ms per op. The servers
// run in the same process, so the figure holds both sides.
func BenchmarkTick64(b *testing.B) {
	for _, form := range []string{"cheap", "full"} {
		b.Run(form, func(b *testing.B) {
			s := serve(b, "v0.19.txt", form == "full")
			cheap := filter(*s.page.Load(), sampleNames[:])
			h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case form == "full" && r.URL.RawQuery != "":
				case form == "full":
					_, _ = io.WriteString(w, *s.page.Load())
				default:
					_, _ = io.WriteString(w, cheap)
				}
			})
			srv := httptest.NewServer(h)
			defer srv.Close()
			var urls []string
			for i := range 64 { // one server under 64 base paths
				urls = append(urls, fmt.Sprintf("%s/%d", srv.URL, i))
			}
			f := newTestFleet(b, urls...)
			p := stopped(b, f, Config{Timeout: time.Minute}, nil)
			p.opts.Fetcher.(*httpFetcher).client.Load().Transport.(*http.Transport).MaxIdleConnsPerHost = 128
			pollOnce(p)
			b.ReportAllocs()
			for b.Loop() {
				pollOnce(p)
			}
			for _, r := range f.Snapshot().Replicas {
				if r.Polled() == nil || r.Polled().Running != balancer.Known(2) {
					b.Fatalf("%s was not polled", r.ID)
				}
			}
		})
	}
}

// A failure is told in words for a log: the replica stands beside it, and the URL
// with its query would hide what happened.
func TestFailureSaysWhy(t *testing.T) {
	s := serve(t, "v0.19.txt", false)
	e, err := balancer.ParseEndpoint(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	f := newHTTPFetcher(nil, nil)
	defer f.close()
	_, _, err = f.Fetch(t.Context(), balancer.NewReplica(e, "", 1), cheapPath, "", nil)
	if err == nil || strings.Contains(err.Error(), "name%5B") || !strings.Contains(err.Error(), "refused") {
		t.Errorf("error %v; want the cause without the URL", err)
	}
}
