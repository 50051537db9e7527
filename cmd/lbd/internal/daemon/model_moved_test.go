package daemon_test

import (
	"strings"
	"testing"

	"lbd/bench/sim"
)

// A replica that came back as another model before anybody noticed answers 404.
// The request did not run there, so another replica of the model gets it.
func TestModelMovedUnnoticed(t *testing.T) {
	for _, profile := range sim.Profiles() {
		t.Run(string(profile), func(t *testing.T) {
			a, b := replica(t, sim.Config{Profile: profile}), replica(t, sim.Config{Profile: profile})
			p := lbd(t, urls(a, b), "strategy", "cycle", "models-poll-interval", "1h", "metrics-poll-interval", "2s", "health-interval", "1h")
			if err := a.SetModel(qwen); err != nil {
				t.Fatal(err)
			}
			for i := range 6 {
				got := p.post("/v1/chat/completions", chat(llama, i%2 == 0, 3))
				if got.status != 200 || got.header.Get("X-Lbd-Replica") != b.Addr() {
					t.Fatalf("request %d: %d from %s: %s", i, got.status, got.header.Get("X-Lbd-Replica"), got.body)
				}
			}
			p.until("the replica's models are learned again", func() bool {
				return p.post("/v1/chat/completions", chat(qwen, false, 3)).status == 200
			})
			p.until("6 requests finished at the other replica", func() bool { return b.Stats().Finished == 6 })
			if n := p.metric(`lbd_retries_total{model="` + llama + `",reason="model_not_found"}`); n == "0" || n == "" {
				t.Errorf("%q retries counted", n)
			}
		})
	}
}

// With nobody else to ask the replica's own answer stays.
func TestModelMovedEverywhere(t *testing.T) {
	a := replica(t, sim.Config{})
	p := lbd(t, urls(a), "models-poll-interval", "1h", "metrics-poll-interval", "2s", "health-interval", "1h")
	if err := a.SetModel(qwen); err != nil {
		t.Fatal(err)
	}
	got := p.post("/v1/chat/completions", chat(llama, false, 3))
	if got.status != 404 || !strings.Contains(got.body, "does not exist") || got.header.Get("X-Lbd-Replica") != a.Addr() {
		t.Fatalf("%d: %s; want the replica's 404", got.status, got.body)
	}
}
