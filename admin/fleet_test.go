package admin

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"lbd/balancer"
	"lbd/balancer/fleet"
)

// golden holds every field of GET /fleet: scripts rely on the names.
const golden = `{
  "generation": 5,
  "replicas": [
    {
      "id": "a:8000",
      "url": "http://a:8000",
      "of": null,
      "device": "gpu0",
      "weight": 1,
      "state": "healthy",
      "reason": "probe succeeded",
      "since": "2023-11-14T22:13:20Z",
      "ejections": 0,
      "draining": true,
      "available": false,
      "models": [
        "m"
      ],
      "own": {
        "in_flight": 2,
        "pending": 1
      },
      "polled": {
        "waiting": 3,
        "running": 4,
        "kv_cache_usage": 0.25,
        "foreign": 5,
        "age_seconds": 1.5,
        "stale": false
      }
    },
    {
      "id": "b:80/base",
      "url": "http://b/base",
      "of": null,
      "device": "gpu0",
      "weight": 1,
      "state": "ejected",
      "reason": "connection refused",
      "since": "2023-11-14T22:13:20Z",
      "ejections": 3,
      "draining": false,
      "available": false,
      "models": null,
      "own": {
        "in_flight": 0,
        "pending": 0
      },
      "polled": {
        "waiting": null,
        "running": null,
        "kv_cache_usage": null,
        "foreign": null,
        "age_seconds": null,
        "stale": null
      }
    }
  ],
  "models": [
    {
      "name": "m",
      "aliases": [
        "alias"
      ],
      "strategy": "first",
      "replicas": [
        "a:8000"
      ],
      "available": [],
      "held": null
    }
  ],
  "unresolved": []
}`

// twoReplicas returns a fleet with one busy replica, drained, and one down.
func twoReplicas(t *testing.T, now time.Time) *fleet.Fleet {
	t.Helper()
	f := configured(t, fleet.Config{
		Strategy: "first", Models: []fleet.ModelConfig{{Name: "m", Aliases: []string{"alias"}, Replicas: []string{"http://a:8000"}}},
	}, "http://a:8000", "http://b/base")
	f.SetHealth("b:80/base", balancer.Health{
		State: balancer.Ejected, Reason: "connection refused", Ejections: 3, Since: time.Unix(1700000000, 0).UTC(),
	})
	if err := f.Drain("a:8000"); err != nil {
		t.Fatal(err)
	}
	r := f.Snapshot().Replicas[0].Replica
	answering, waiting := r.Reserve(), r.Reserve()
	answering.FirstByte()
	t.Cleanup(answering.Done)
	t.Cleanup(waiting.Done)
	r.EndPoll(r.BeginPoll(), balancer.Sample{Waiting: balancer.Known(3), Running: balancer.Known(4), KVUsage: balancer.Known(0.25)}, now)
	return f
}

func TestFleetFieldNames(t *testing.T) {
	at := time.Unix(1700000100, 0)
	f := twoReplicas(t, at)
	got, err := json.MarshalIndent(viewFleet(f.Snapshot(), at.Add(1500*time.Millisecond)), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(golden, string(got)); diff != "" {
		t.Error(diff)
	}
}

func TestFleetPage(t *testing.T) {
	s := start(t, Options{Fleet: twoReplicas(t, time.Now())})
	a := s.get("/fleet")
	v := decode[fleetView](t, a.body)
	if a.status != 200 || a.header.Get("Content-Type") != "application/json" || len(v.Replicas) != 2 || v.Replicas[0].Own.InFlight != 2 {
		t.Errorf("answer %d %v %s", a.status, a.header, a.body)
	}
	if a := s.do("HEAD", "/fleet", ""); a.status != 200 || a.body != "" {
		t.Errorf("HEAD: %d %q", a.status, a.body)
	}
	wantContains(t, wantError(t, s.get("/fleet?format=xml"), 400, "unknown_format"), `"xml"`, "json or table")
}

// A replica that is well and serves nothing says so in the place of the reason.
func TestFleetWithoutModels(t *testing.T) {
	f := configured(t, fleet.Config{Strategy: "first"}, "http://a:1", "http://b:1")
	for _, id := range []string{"a:1", "b:1"} {
		f.SetHealth(id, balancer.Health{State: balancer.Healthy})
	}
	f.SetModels("b:1", []balancer.ModelInfo{{ID: "m"}})
	v := viewFleet(f.Snapshot(), time.Now())
	if a, b := v.Replicas[0], v.Replicas[1]; a.Reason != noModels || a.Available || b.Reason != "" || !b.Available {
		t.Errorf("%q and %q; want the first to say that it has no models", a.Reason, b.Reason)
	}
}

func TestFleetHeld(t *testing.T) {
	s := start(t, Options{Fleet: twoReplicas(t, time.Now()), Held: func(model string) Held {
		if model != "m" {
			t.Errorf("asked for %q", model)
		}
		return Held{Waiting: 37, Clients: 2, Bytes: 999, Oldest: 1500 * time.Millisecond, Tokens: 5000.4}
	}})
	got, err := json.Marshal(decode[fleetView](t, s.get("/fleet").body).Models[0].Held)
	want := `{"waiting":37,"clients":2,"bytes":999,"oldest_seconds":1.5,"tokens":5000,"tokens_per_second":null}`
	if err != nil || string(got) != want {
		t.Errorf("held is %s, %v; want %s", got, err, want)
	}
	wantContains(t, s.get("/fleet?format=table").body, "HELD", "37")
}

func TestFleetTable(t *testing.T) {
	s := start(t, Options{Fleet: twoReplicas(t, time.Now())})
	for _, a := range []answer{s.get("/fleet?format=table"), s.get("/fleet", "Accept", "text/plain")} {
		if !strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") {
			t.Errorf("content type %q", a.header.Get("Content-Type"))
		}
		lines := strings.Split(a.body, "\n")
		wantContains(t, lines[0], "generation 5")
		wantContains(t, lines[3], "a:8000", "healthy", "draining", "25%", "gpu0", "probe succeeded", "2023-11-14T22:13:20Z")
		wantContains(t, lines[4], "b:80/base", "ejected", "no", "never", "connection refused")
		wantContains(t, a.body, "0/1")
		if column := strings.Index(lines[2], "STATE"); lines[3][column:column+7] != "healthy" || lines[4][column:column+7] != "ejected" {
			t.Errorf("columns are not aligned:\n%s", a.body)
		}
	}
}

func TestAcceptHeader(t *testing.T) {
	for accept, want := range map[string]bool{
		"": false, "*/*": false, "text/plain": true, "Text/Plain; q=0.5": true, "text/html, text/plain": true,
		"application/json, text/plain": false, "text/plain, application/json": true, "text/html, */*": false,
	} {
		if got := prefersText(accept); got != want {
			t.Errorf("prefersText(%q) = %v", accept, got)
		}
	}
}

// Model names come from replicas; they must not steer the terminal of whoever
// reads the table, nor break its lines.
func TestTableHoldsNoControlCharacters(t *testing.T) {
	f := configured(t, fleet.Config{Strategy: "first"}, "http://a:1")
	f.SetModels("a:1", []balancer.ModelInfo{{ID: "x\x1b[2J\ny\tz"}})
	v := viewFleet(f.Snapshot(), time.Now())
	var b bytes.Buffer
	v.writeTable(&b)
	if strings.ContainsAny(b.String(), "\x1b\t") || strings.Contains(b.String(), "\ny") {
		t.Errorf("%q", b.String())
	}
	wantContains(t, b.String(), "x\ufffd[2J\ufffdy\ufffdz")
}

// What JSON cannot say must not fail the page.
func TestOddGaugesAreUnknown(t *testing.T) {
	r := balancer.NewReplica(balancer.Endpoint{Addr: "a:1"}, "", 1)
	r.EndPoll(r.BeginPoll(), balancer.Sample{Waiting: balancer.Known(math.NaN()), KVUsage: balancer.Known(math.Inf(1))}, time.Now())
	v := viewPolled(r.Polled(), time.Now())
	if v.Waiting != nil || v.KVCacheUsage != nil || v.Running != nil {
		t.Errorf("%+v", v)
	}
	if terms := viewTerms(r); terms.Waiting != nil || terms.Running != nil {
		t.Errorf("%+v", terms)
	}
}

func TestStalePollShowsValuesButNoForeignLoad(t *testing.T) {
	r := balancer.NewReplica(balancer.Endpoint{Addr: "a:1"}, "", 1)
	r.EndPoll(r.BeginPoll(), balancer.Sample{Running: balancer.Known(9)}, time.Now())
	r.MarkStale()
	v := viewPolled(r.Polled(), time.Now())
	if *v.Running != 9 || v.Foreign != nil || !*v.Stale {
		t.Errorf("%+v", v)
	}
}

func TestEmptyFleet(t *testing.T) {
	s := start(t, Options{Fleet: configured(t, fleet.Config{Strategy: "first"})})
	wantContains(t, s.get("/fleet").body, `"replicas": []`, `"models": []`)
	wantContains(t, s.get("/fleet?format=table").body, "REPLICA", "MODEL")
	wantError(t, s.do("POST", "/fleet/sleep", ""), 503, "no_replica")
}

// A name without an address has no replica to be seen by.
func TestFleetOfANameWithoutAddress(t *testing.T) {
	const of = "dns+http://vllm.example.org:8000"
	s := start(t, Options{Fleet: configured(t, fleet.Config{Strategy: "first", Unresolved: []string{of}})})
	if v := decode[fleetView](t, s.get("/fleet").body); len(v.Unresolved) != 1 || v.Unresolved[0] != of {
		t.Errorf("%+v; want the name", v)
	}
	wantContains(t, s.get("/fleet?format=table").body, of, "no address is known")
}

// A replica that is one address of a name says of which.
func TestFleetOfAName(t *testing.T) {
	const of = "dns+http://vllm.example.org:8000"
	f := configured(t, fleet.Config{Strategy: "first", Replicas: []fleet.ReplicaConfig{{URL: "http://[fd00::1]:8000", Of: of}}})
	s := start(t, Options{Fleet: f})
	wantContains(t, s.get("/fleet").body, `"id": "[fd00::1]:8000"`, `"url": "http://[fd00::1]:8000"`, `"of": "`+of+`"`)
	wantContains(t, s.get("/fleet?format=table").body, of)
}
