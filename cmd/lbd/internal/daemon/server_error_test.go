package daemon_test

import (
	"testing"

	"lbd/bench/sim"
)

// uvicorn closes the connection behind the 500 of an unhandled exception without
// saying so in the head. One client that causes them must cost others nothing.
func TestServerErrorDoesNotPoison(t *testing.T) {
	r := replica(t, sim.Config{Profile: sim.ProfileV064}) // answers a wrong content type so
	p := lbd(t, []string{r.URL()})
	for i := range 40 {
		if bad := p.do("POST", "/v1/chat/completions", chat(llama, false, 1), "Content-Type", "text/plain"); bad.status != 500 {
			t.Fatalf("bad request %d: %d; want the replica's 500", i, bad.status)
		}
		if good := p.post("/v1/chat/completions", chat(llama, false, 1)); good.status != 200 {
			t.Fatalf("good request %d: %d %s", i, good.status, good.body)
		}
	}
}

// A preflight names no model and is answered by any replica, here with its 405:
// the simulated replica has no CORS middleware.
func TestPreflight(t *testing.T) {
	a, b := replica(t, sim.Config{}), replica(t, sim.Config{Model: qwen})
	p := lbd(t, urls(a, b))
	got := p.do("OPTIONS", "/v1/chat/completions", "", "Origin", "http://example.org", "Access-Control-Request-Method", "POST")
	if got.status != 405 || got.header.Get("X-Lbd-Replica") == "" {
		t.Fatalf("%d from %q; want a replica's answer", got.status, got.header.Get("X-Lbd-Replica"))
	}
}
