package replay

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"lbd/balancer/strategy"
	"lbd/bench/sim/engine"
	"lbd/bench/trace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func shippedNamed(t testing.TB, name string) Policy {
	t.Helper()
	e, ok := strategy.Lookup(name)
	if !ok {
		t.Fatalf("no strategy %q", name)
	}
	return Shipped(e)
}

// poisson is synthetic traffic with shared prefixes.
func poisson(t testing.TB, rate float64, requests int) *Workload {
	t.Helper()
	tr, err := trace.Synthetic{
		Rate: rate, Requests: requests, Prompt: trace.Lengths{Min: 50, Max: 1500}, Output: trace.Lengths{Min: 1, Max: 200},
		Tenants: 10, TenantTokens: 1024, Seed: 3,
	}.Trace()
	if err != nil {
		t.Fatal(err)
	}
	return Open("synthetic", tr)
}

func mustRun(t testing.TB, c Config, w *Workload) *Result {
	t.Helper()
	res, err := Run(c, w)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// One request alone takes its front-end time, one step for the prompt and one per further token.
func TestOneRequest(t *testing.T) {
	w := Open("one", trace.Of(0, trace.Arrival{At: time.Second, PromptTokens: 1000, OutputTokens: 3}))
	res := mustRun(t, Config{
		Fleet: Fleet{{Count: 2, Engine: engine.Config{Jitter: -1}}}, Policy: shippedNamed(t, "least-waiting"), Seed: 7,
	}, w)
	p, err := engine.PresetNamed("llama-3.1-8b")
	if err != nil {
		t.Fatal(err)
	}
	front := engine.FrontEnd(4000, unit(7, saltFrontEnd, 0))
	prefill := p.StepTime(engine.ProfileV1, engine.Shape{Sequences: 1, Tokens: 1000, Pairs: 1000 * 500})
	decode := p.StepTime(engine.ProfileV1, engine.Shape{Sequences: 1, Tokens: 1, Decodes: 1, KVTokens: 1000}) +
		p.StepTime(engine.ProfileV1, engine.Shape{Sequences: 1, Tokens: 1, Decodes: 1, KVTokens: 1001})
	if got, want := res.TTFT.Mean, millis(front+prefill); math.Abs(got-want) > .001 {
		t.Errorf("TTFT %.3f ms, want %.3f", got, want)
	}
	if got, want := res.E2E.Mean, millis(front+prefill+decode); math.Abs(got-want) > .001 {
		t.Errorf("E2E %.3f ms, want %.3f", got, want)
	}
	if got, want := res.TPOT.Mean, millis(decode)/2; math.Abs(got-want) > .001 {
		t.Errorf("TPOT %.3f ms, want %.3f", got, want)
	}
	if math.Abs(res.ITL.P50/(millis(decode)/2)-1) > histogramStep {
		t.Errorf("ITL p50 %.3f ms, want %.3f", res.ITL.P50, millis(decode)/2)
	}
}

// The same configuration gives the same bytes, and every request ends once, whatever goes wrong.
func TestDeterministicAndConserved(t *testing.T) {
	for name, c := range map[string]Config{
		"plain":         {},
		"lbds":          {LBDs: 3, Poll: 250 * time.Millisecond},
		"not streamed":  {NonStreaming: .5},
		"little memory": {KVFactor: .012},
		"mixed":         {Fleet: Fleet{{Count: 2}, {Count: 2, Speed: .5, Weight: 1}, {Count: 1, Preset: "qwen2.5-7b", Weight: 2}}},
		"crash": {Faults: []Fault{
			{Replica: 1, At: 5 * time.Second, For: 20 * time.Second}, {Replica: 2, At: 8 * time.Second, Factor: 3, For: 9 * time.Second},
		}},
		"gone for good": {Faults: []Fault{{Replica: 0, At: 3 * time.Second}}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, e := range strategy.Table {
				c := c
				c.Policy, c.Seed, c.Warmup = Shipped(e), 5, .1
				if c.Fleet == nil {
					c.Fleet = Fleet{{Count: 4}}
				}
				w := poisson(t, 40, 400)
				a, b := mustRun(t, c, w), mustRun(t, c, w)
				if diff := cmp.Diff(string(asJSON(t, a)), string(asJSON(t, b))); diff != "" {
					t.Fatalf("%s: two runs differ:\n%s", e.Name, diff)
				}
				if a.Requests != 400 || a.Completed+a.Failed != 400 {
					t.Errorf("%s: %d requests, %d completed, %d failed; want 400", e.Name, a.Requests, a.Completed, a.Failed)
				}
				if len(c.Faults) == 0 && a.Failed > 0 {
					t.Errorf("%s: %d failed without a fault", e.Name, a.Failed)
				}
				if c.KVFactor > 0 && a.Preemptions == 0 {
					t.Errorf("%s: no preemption; the case does not reach what it is for", e.Name)
				}
			}
		})
	}
}

func asJSON(t *testing.T, r *Result) []byte {
	t.Helper()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// What is predicted late is refused, once and before it is anybody's load; who does not predict refuses nothing.
func TestRefused(t *testing.T) {
	c := Config{Fleet: Fleet{{Count: 2}}, NonStreaming: .3, LBDs: 2, Seed: 2, Limits: Limits{TTFT: 300 * time.Millisecond, TPOT: time.Second}}
	run := func(name string, limit time.Duration) *Result {
		c.Policy, c.Admission.TTFT = shippedNamed(t, name), limit
		return mustRun(t, c, poisson(t, 120, 1500))
	}
	all, some := run("least-cost", 0), run("least-cost", 300*time.Millisecond)
	if all.Late != 0 || all.Failed != 0 {
		t.Errorf("%d refused and %d failed without a limit", all.Late, all.Failed)
	}
	if some.Late == 0 || some.Late != some.Failed || some.Completed+some.Late != 1500 {
		t.Errorf("%d refused, %d failed, %d completed; want all 1500 served or refused, some of them that", some.Late, some.Failed, some.Completed)
	}
	if some.Good <= all.Good || some.TTFT.P99 >= all.TTFT.P99 {
		t.Errorf("with a limit %.3f good and a p99 of %.0f ms, without %.3f and %.0f: refusing gave nothing", some.Good, some.TTFT.P99, all.Good, all.TTFT.P99)
	}
	if r := run("least-inflight", time.Millisecond); r.Late != 0 {
		t.Errorf("least-inflight refused %d; it predicts nothing", r.Late)
	}
	c.Admission.TTFTPerToken = time.Second
	if r := run("least-cost", time.Millisecond); r.Late != 0 {
		t.Errorf("%d refused that had a second for each token", r.Late)
	}
}

// Streams whose tokens are predicted slow are refused, others are not; what is served is faster for it.
func TestRefusedForSlowTokens(t *testing.T) {
	c := Config{Fleet: Fleet{{Count: 2}}, Seed: 2, Limits: Limits{TTFT: time.Minute, TPOT: 20 * time.Millisecond}, Policy: shippedNamed(t, "least-cost")}
	run := func(limit time.Duration, unstreamed float64) *Result {
		c.Admission.TPOT, c.NonStreaming = limit, unstreamed
		return mustRun(t, c, poisson(t, 120, 1500))
	}
	all, some := run(0, 0), run(20*time.Millisecond, 0)
	if some.Late == 0 || some.Late != some.Failed || some.Completed+some.Late != 1500 {
		t.Errorf("%d refused, %d failed, %d completed; want all 1500 served or refused, some of them that", some.Late, some.Failed, some.Completed)
	}
	if some.Good <= all.Good || some.TPOT.P99 >= all.TPOT.P99 {
		t.Errorf("with a limit %.3f good and a p99 of %.1f ms, without %.3f and %.1f: refusing gave nothing", some.Good, some.TPOT.P99, all.Good, all.TPOT.P99)
	}
	if r := run(20*time.Millisecond, 1); r.Late != 0 {
		t.Errorf("%d refused that do not stream", r.Late)
	}
}

// Own load is zero when everything has ended.
func TestOwnLoadEndsAtZero(t *testing.T) {
	for _, e := range strategy.Table {
		var made []*shipped
		p := Shipped(e)
		p.New = func(s Setup) Router {
			r := newShipped(e, s)
			made = append(made, r)
			return r
		}
		mustRun(t, Config{
			Fleet: Fleet{{Count: 3}}, Policy: p, LBDs: 2, NonStreaming: .3, Faults: []Fault{{Replica: 1, At: 4 * time.Second, For: time.Second}},
			Admission: Limits{TTFT: 100 * time.Millisecond},
		}, poisson(t, 40, 800))
		for _, r := range made {
			for _, rep := range r.replicas {
				if rep.InFlight() != 0 || rep.Pending() != 0 || rep.Resident() != 0 || rep.PrefillTokens() != 0 {
					t.Errorf("%s: %s ends with %d in flight, %d pending, %d tokens, %d to prefill",
						e.Name, rep.ID, rep.InFlight(), rep.Pending(), rep.Resident(), rep.PrefillTokens())
				}
			}
		}
	}
}

// A dead replica fails what was mid-stream on it, costs nothing else, and serves again when it is back.
func TestCrash(t *testing.T) {
	c := Config{
		Fleet: Fleet{{Count: 4}}, Policy: shippedNamed(t, "least-inflight"),
		Faults: []Fault{{Replica: 2, At: 10 * time.Second, For: 5 * time.Second}},
	}
	res := mustRun(t, c, poisson(t, 30, 2000))
	if res.Failed == 0 || res.Failed > 60 {
		t.Errorf("%d failed, want those that were mid-stream on one of four replicas", res.Failed)
	}
	if res.RequestsCoV > .3 {
		t.Errorf("requests per replica vary by %.2f of their mean: the replica did not come back", res.RequestsCoV)
	}
	c.NonStreaming = 1
	res = mustRun(t, c, poisson(t, 30, 2000))
	if res.Failed != 0 {
		t.Errorf("%d requests that are not streamed failed; all can be sent again", res.Failed)
	}
	if res.Retries == 0 {
		t.Error("no retry: requests of the dead replica must go elsewhere")
	}
}

func TestConfigRefused(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"no replica":  func(c *Config) { c.Fleet = nil },
		"no policy":   func(c *Config) { c.Policy = Policy{} },
		"fast poll":   func(c *Config) { c.Poll = time.Microsecond },
		"share":       func(c *Config) { c.NonStreaming = 1.5 },
		"NaN":         func(c *Config) { c.KVFactor = math.NaN() },
		"fault":       func(c *Config) { c.Faults = []Fault{{Replica: 9}} },
		"preset":      func(c *Config) { c.Fleet = Fleet{{Count: 1, Preset: "gpt-2"}} },
		"warm-up":     func(c *Config) { c.Warmup = 1 },
		"lbds":        func(c *Config) { c.LBDs = -1 },
		"block size":  func(c *Config) { c.BlockSize = -1 },
		"too many":    func(c *Config) { c.Fleet = Fleet{{Count: maxReplicas + 1}} },
		"TTFT limit":  func(c *Config) { c.Admission.TTFT = -1 },
		"per token":   func(c *Config) { c.Admission.TTFTPerToken = 1 },
		"fault times": func(c *Config) { c.Faults = []Fault{{At: -1}} },
	} {
		c := Config{Fleet: Fleet{{Count: 1}}, Policy: shippedNamed(t, "cycle")}
		change(&c)
		if _, err := Run(c, poisson(t, 1, 1)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// What is wrong with a fault is said with the value and what was wanted, as for all else.
func TestFaultRefused(t *testing.T) {
	for want, f := range map[string]Fault{
		"a fault of replica 2 in a fleet of 2; want 0 to 1":       {Replica: 2},
		"a fault of replica -1 in a fleet of 2; want 0 to 1":      {Replica: -1},
		"a fault of replica 1 at -1s; want 0 or later":            {Replica: 1, At: -time.Second},
		"a fault of replica 0 for -2s; want 0 or more":            {For: -2 * time.Second},
		"a fault of replica 0 by a factor of NaN; want 0 or more": {Factor: math.NaN()},
	} {
		c := Config{Fleet: Fleet{{Count: 2}}, Policy: shippedNamed(t, "cycle"), Faults: []Fault{f}}
		if _, err := Run(c, poisson(t, 1, 1)); err == nil || err.Error() != want {
			t.Errorf("%v; want %q", err, want)
		}
	}
}

func TestAgendaAndSteps(t *testing.T) {
	var g agenda
	for i := range 200 {
		g.add(event{at: time.Duration(i * 7919 % 31), kind: kind(i % 3), who: i})
	}
	last := event{at: -1}
	for range 200 {
		if e := g.pop(); e.before(last) {
			t.Fatalf("%+v after %+v", e, last)
		} else {
			last = e
		}
	}
	if g.next() != never {
		t.Error("an empty agenda has a next event")
	}
	s := newSteps(50)
	want := make([]time.Duration, 50)
	for i := range want {
		want[i] = never
	}
	for i := range 5000 {
		n := i * 31 % 50
		want[n] = time.Duration(i * 7919 % 1009)
		s.set(n, want[n])
		least := 0
		for j := range want {
			if want[j] < want[least] {
				least = j
			}
		}
		if got, at := s.first(); got != least || at != want[least] {
			t.Fatalf("first is %d at %v, want %d at %v", got, at, least, want[least])
		}
	}
}

func TestFleetNotation(t *testing.T) {
	for _, text := range []string{"16", "8xllama-3.1-8b,8xllama-3.1-8b@0.5", "1@2"} {
		f, err := ParseFleet(text)
		if err != nil || f.String() != text {
			t.Errorf("%q becomes %q, %v", text, f.String(), err)
		}
	}
	for _, text := range []string{"", "x", "0", "-1", "2xgpt-2", "2@0", "2@x", "3,", "99999999"} {
		if _, err := ParseFleet(text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}

func FuzzParseFleet(f *testing.F) {
	f.Add("8xllama-3.1-8b,8xllama-3.1-8b@0.5")
	f.Fuzz(func(t *testing.T, s string) {
		if fleet, err := ParseFleet(s); err == nil {
			again, err := ParseFleet(fleet.String())
			if err != nil || again.Size() != fleet.Size() {
				t.Errorf("%q becomes %q: %v", s, fleet.String(), err)
			}
		}
	})
}

func TestParseFault(t *testing.T) {
	for text, want := range map[string]Fault{
		"crash:3@1m":        {Replica: 3, At: time.Minute},
		"crash:3@1m+30s":    {Replica: 3, At: time.Minute, For: 30 * time.Second},
		"slow:0@0s+30s*2.5": {At: 0, For: 30 * time.Second, Factor: 2.5},
		"slow:1@5s*2":       {Replica: 1, At: 5 * time.Second, Factor: 2},
	} {
		if got, err := ParseFault(text); err != nil || got != want {
			t.Errorf("%q is %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "crash", "crash:1", "crash:-1@1s", "crash:1@x", "crash:1@1s+0s", "crash:1@1s*2", "slow:1@1s", "slow:1@1s*0", "slow:1@1s*NaN", "hang:1@1s"} {
		if f, err := ParseFault(text); err == nil {
			t.Errorf("%q is accepted as %+v", text, f)
		}
	}
}

func FuzzParseFault(f *testing.F) {
	f.Add("slow:0@0s+30s*2.5")
	f.Fuzz(func(t *testing.T, s string) {
		if x, err := ParseFault(s); err == nil && (x.Replica < 0 || x.At < 0 || x.For < 0 || !(x.Factor >= 0)) {
			t.Errorf("%q is %+v", s, x)
		}
	})
}
