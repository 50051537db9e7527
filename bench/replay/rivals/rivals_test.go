package rivals

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lbd/balancer"
	"lbd/bench/replay"
	"lbd/bench/sim/engine"
	"lbd/bench/trace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testBlock = 100 // tokens

// bench is a rule with n idle replicas, driven by hand.
type bench struct {
	t      *testing.T
	r      replay.Router
	all    []int
	now    time.Duration
	nextID uint64
}

func newBench(t *testing.T, n int, make func(replay.Setup) replay.Router) *bench {
	t.Helper()
	s := replay.Setup{LBDs: 1, Poll: time.Second, BlockTokens: testBlock, Uint64: rand.New(rand.NewPCG(1, 2)).Uint64}
	e, err := engine.New(engine.Config{})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t}
	for i := range n {
		s.Replicas = append(s.Replicas, replay.ReplicaInfo{Speed: 1, Preset: e.Preset(), Engine: e.Config()})
		b.all = append(b.all, i)
	}
	b.r = make(s)
	return b
}

// query is a prompt made of whole blocks.
func (b *bench) query(blocks ...uint64) *replay.Query {
	b.nextID++
	return &replay.Query{Request: replay.Request{
		ID: b.nextID, At: b.now, PromptTokens: testBlock * len(blocks), OutputTokens: 10, Blocks: blocks,
	}, Stream: true}
}

// send picks and sends.
func (b *bench) send(blocks ...uint64) *replay.Query {
	q := b.query(blocks...)
	b.sendQuery(q)
	return q
}

func (b *bench) sendQuery(q *replay.Query) {
	b.now += time.Millisecond
	if q.Replica = b.r.Pick(b.now, q, b.all); q.Replica != replay.Hold && !slices.Contains(b.all, q.Replica) {
		b.t.Fatalf("picked %d, which is no candidate of %v", q.Replica, b.all)
	}
}

func (b *bench) end(qs ...*replay.Query) {
	for _, q := range qs {
		b.now += time.Millisecond
		b.r.FirstToken(b.now, q)
		b.r.Done(b.now, q, true)
	}
}

func (b *bench) poll(replica int, waiting, running, kv float64) {
	b.r.Poll(b.now, replica, &balancer.Sample{
		Waiting: balancer.Known(waiting), Running: balancer.Known(running), KVUsage: balancer.Known(kv),
	})
}

// want checks where the last request went.
func (b *bench) want(q *replay.Query, replica int, why string) {
	b.t.Helper()
	if q.Replica != replica {
		b.t.Errorf("went to %d, want %d: %s", q.Replica, replica, why)
	}
}

// fresh are blocks nobody has.
func fresh(n, from int) []uint64 {
	ids := make([]uint64, n)
	for i := range ids {
		ids[i] = uint64(1_000_000*from + i + 1)
	}
	return ids
}

func TestCacheAware(t *testing.T) {
	b := newBench(t, 3, sglangCommandLine)
	home := b.send(1, 2, 3, 4)
	b.want(b.send(1, 2, 9, 9), home.Replica, "half of it matches, above .3")
	if q := b.send(1, 7, 7, 7); q.Replica == home.Replica {
		t.Error("a quarter of it matches, not above .3: fewest requests")
	}
	var last *replay.Query
	for range 70 {
		last = b.send(1, 2, 3, 4)
	}
	if last.Replica == home.Replica {
		t.Error("more than 64 and 1.5 times apart: affinity is dropped")
	}
}

func TestCacheAwareLibrary(t *testing.T) {
	b := newBench(t, 2, sglangLibrary)
	home := b.send(1, 2, 3, 4)
	b.want(b.send(1, 2, 3, 9), home.Replica, "three quarters match, above .5")
	b.end(b.send(fresh(20, 1)...)) // 2,000 tokens
	b.end(b.send(fresh(40, 2)...), b.send(fresh(40, 3)...))
	b.now += 31 * time.Second
	b.send(fresh(1, 4)...) // evicts: trees hold 2,500 tokens
	r := b.r.(*cacheAware)
	for i := range r.load {
		if n := r.tree.size(i); n > 2500 {
			t.Errorf("the tree of %d has %d tokens after an eviction, want at most 2500", i, n)
		}
	}
}

func TestCacheAwareDeadHome(t *testing.T) {
	b := newBench(t, 3, sglangCommandLine)
	home := b.send(1, 2, 3)
	b.all = slices.DeleteFunc(b.all, func(i int) bool { return i == home.Replica })
	for range 3 {
		b.want(b.send(1, 2, 3), b.all[0], "its home is gone: the first healthy one, whatever its load")
	}
}

func TestSMGCacheAware(t *testing.T) {
	b := newBench(t, 3, newSMGCacheAware)
	home := b.send(1, 2, 3, 4)
	for range 66 {
		b.want(b.send(1, 2, 3, 4), home.Replica, "not above mean + 64 yet")
	}
	for range 40 {
		b.send(1, 2, 3, 4)
	}
	if q := b.send(1, 2, 3, 4); q.Replica == home.Replica {
		t.Error("above 1.5 times the mean and mean + 64: it spills")
	}
}

func TestSMGLeastLoad(t *testing.T) {
	b := newBench(t, 2, smgLeastLoad)
	b.poll(0, 0, 0, 0)
	b.poll(1, 1.5, 0, 0)
	b.want(b.send(fresh(1, 1)...), 0, "nobody waits there")
	b.want(b.send(fresh(40, 2)...), 0, "100 tokens since the poll are less than 1.5 requests of the mean, 100")
	b.want(b.send(fresh(1, 3)...), 1, "what was sent since the poll counts: 4,100 tokens against 1.5 x 2,050")
	b.poll(0, 0, 0, .99)
	b.poll(1, 0, 0, 0)
	b.want(b.send(fresh(1, 4)...), 1, "the KV cache is full there")
}

func TestLMetric(t *testing.T) {
	b := newBench(t, 2, lmetricPaper)
	b.want(b.send(1, 2, 3, 4), 0, "all equal: the first")
	b.want(b.send(1, 2, 3, 9), 1, "(400 + 100) x 2 against (0 + 400) x 1")
	b.want(b.send(1, 2, 3, 8), 0, "(400 + 100) x 2 = 1000 against (400 + 100) x 2: equal; the first")
	g := newBench(t, 2, lmetricGateway)
	g.want(g.send(1, 2, 3, 4), 0, "all equal: the first")
	g.want(g.send(1, 2, 3, 9), 0, "100 x 2 against 400 x 1: outstanding work does not count")
}

func TestSMetric(t *testing.T) {
	b := newBench(t, 3, newSmetric)
	home := b.send(1, 2, 3, 4)
	for range 5 {
		b.want(b.send(1, 2, 3, 9), home.Replica, "no rate is known: every limit is met")
	}
	r := b.r.(*smetric)
	for i := range r.rates {
		for range smetricEnough {
			r.rates[i].ring[r.rates[i].n] = 1000 // work per second: 4,000 characters take seconds
			r.rates[i].n++
		}
	}
	b.end(b.send(fresh(1, 5)...))
	if q := b.send(1, 2, 3, 8); q.Replica != home.Replica && r.prefill[home.Replica] == 0 {
		t.Error("home meets the limit as well as anybody")
	}
}

func TestDynamo(t *testing.T) {
	b := newBench(t, 2, dynamoApproximate)
	first := b.send(1, 2, 3, 4) // 400 to prefill, 400 in memory
	b.want(b.send(1, 2, 3, 9), 1-first.Replica, "400 + 100 + 400 + 100 against 400 + 400")
	b.r.FirstToken(b.now, first)
	b.want(b.send(1, 2, 3, 8), first.Replica, "prefill done: 100 + 400 + 100 against 400 + 100 + 400 + 100")
	b.now += dynamoTTL + time.Second
	if m := b.r.(*dynamo).tree.match(b.now, b.query(1, 2, 3, 4)); m[0] != 0 || m[1] != 0 {
		t.Errorf("matches %v after the TTL, want none", m)
	}
	o := newBench(t, 2, dynamoOlder)
	home := o.send(1, 2, 3, 4)
	o.want(o.send(fresh(2, 1)...), 1-home.Replica, "200 + 400 against 200 + 0")
	o.want(o.send(1, 2, 3, 4), home.Replica, "0 + 400 against 400 + 200")
}

func TestLLMDBlend(t *testing.T) {
	b := newBench(t, 2, newLLMDBlend)
	home := b.send(1, 2, 3, 4)
	b.want(b.send(1, 2, 3, 4), home.Replica, "3 for the prefix")
	b.poll(home.Replica, 5, 5, .6)
	b.poll(1-home.Replica, 0, 0, 0)
	b.want(b.send(1, 2, 3, 4), 1-home.Replica, "3 + 0 + .8 against 0 + 2 + 2")
	for range 4 {
		b.want(b.send(fresh(1, 7)...), 1-home.Replica, "polled state alone: the herd")
	}
}

func TestLLMDSticky(t *testing.T) {
	b := newBench(t, 2, llmdStickyDefault)
	home := b.send(1, 2, 3, 4, 5)
	b.want(b.send(1, 2, 3, 4, 9), home.Replica, "four fifths match")
	if q := b.send(1, 2, 3, 8, 9); q.Replica == home.Replica {
		t.Error("three fifths match, below .8: the fewest outstanding tokens")
	}
	b.r.(*llmdSticky).prefill[home.Replica] = stickyPeak * (stickyPenalty + 1)
	b.want(b.send(1, 2, 3, 4, 5), 1-home.Replica, "19 s against none: not sticky")
	b.r.(*llmdSticky).prefill[home.Replica] = stickyPeak * (stickyPenalty - 1)
	b.want(b.send(1, 2, 3, 4, 5), 1-home.Replica, "the other one holds it now too, and is less busy")
}

func TestVLLMDP(t *testing.T) {
	b := newBench(t, 3, newVLLMDP)
	b.poll(0, 0, 5, 0)
	b.poll(1, 1, 0, 0)
	b.poll(2, 0, 5, 0)
	b.want(b.send(1), 1, "4 x 1 + 0 is less than 5")
	b.want(b.send(1), 0, "each pick adds to waiting; the first minimum from the start")
	b.want(b.send(1), 2, "5 is less than 8 and 9")
}

func TestPolledRules(t *testing.T) {
	b := newBench(t, 3, naiveWaitingFirst)
	for i := range 3 {
		b.poll(i, 0, float64(9-i), 0)
	}
	for range 5 {
		b.want(b.send(1), 0, "nobody waits: the first")
	}
	b = newBench(t, 3, naiveRunning)
	for i := range 3 {
		b.poll(i, 0, float64(9-i), 0)
	}
	b.want(b.send(1), 2, "fewest running")
	b.want(b.send(1), 2, "and again, until the next poll")
	b = newBench(t, 2, newPolledTwo)
	b.poll(0, 3, 0, 0)
	b.poll(1, 0, 0, 0)
	for range 5 {
		b.want(b.send(1), 1, "of two, the one that was less loaded at the poll")
	}
}

func TestPrequal(t *testing.T) {
	b := newBench(t, 4, newPrequal)
	r := b.r.(*prequal)
	for i := range 4 {
		r.ttfts[i] = ttftSamples{n: 1}
		r.ttfts[i].ttft[0] = float64(4 - i)
	}
	r.rifs = []int{5}
	r.pool = []probe{{replica: 0, rif: 9, latency: 1, usesLeft: 9}, {replica: 1, rif: 3, latency: 4, usesLeft: 9}, {replica: 2, rif: 3, latency: 2, usesLeft: 9}}
	if w := r.choose(b.all); w != 2 {
		t.Errorf("chose %d, want 2: the fastest cold one", w)
	}
	r.rifs = []int{1}
	if w := r.choose(b.all); r.pool[1].rif != 3 || w == 0 {
		t.Errorf("chose %d, want a hot one with the lowest RIF", w)
	}
	r.pool = r.pool[:1]
	seen := map[int]bool{}
	for range 40 {
		seen[r.choose(b.all)] = true
	}
	if len(seen) < 3 {
		t.Errorf("with one probe it went to %v only, want random ones", seen)
	}
}

func TestC3(t *testing.T) {
	b := newBench(t, 2, newC3)
	r := b.r.(*c3)
	r.response, r.service = []float64{1, 1}, []float64{.1, .1}
	r.load[0] = 1
	b.want(b.send(1), 1, "the queue counts to the third power")
	r.load = []int{1, 1}
	r.response[1] = 2
	b.want(b.send(1), 0, "equal queues: the faster one")
}

func TestPreble(t *testing.T) {
	b := newBench(t, 2, newPreble)
	home := b.send(1, 2, 3, 4)
	b.want(b.send(1, 2, 3, 9), home.Replica, "more cached than new: exploit")
	b.want(b.send(1, 8, 8, 8), 1-home.Replica, "more new than cached: the least work in the window")
	b.end(home)
	b.now += prebleWindow + time.Second
	if got := b.r.(*preble).recent(b.now, home.Replica); got != 0 {
		t.Errorf("%v ms in the window after it has passed", got)
	}
}

func TestAIBrix(t *testing.T) {
	b := newBench(t, 3, newAIBrixPrefix)
	home := b.send(1, 2, 3)
	q := b.send(1, 2, 3)
	if b.r.(*aibrixPrefix).load[home.Replica] == 2 {
		t.Error("one request against none is above mean + sigma of (1, 0, 0): fewest requests")
	}
	b.end(home, q)
	b.want(b.send(1, 2, 3), min(home.Replica, q.Replica), "idle: the longest match")
	b.r.(*aibrixPrefix).load = []int{20, 3, 20}
	b.want(b.send(1, 2, 3), 1, "more than 8 apart: the least loaded only")
}

func TestPrefixAware(t *testing.T) {
	b := newBench(t, 3, newPrefixAware)
	home := b.send(1, 2, 3)
	for range 50 {
		b.want(b.send(1, 7, 8), home.Replica, "any match wins, whatever the load")
	}
}

func TestHashing(t *testing.T) {
	b := newBench(t, 4, newPrefixHash)
	home := b.send(1, 2)
	b.end(home)
	b.want(b.send(1, 9), home.Replica, "the same head")
	if q := b.send(1, 8); q.Replica == home.Replica {
		t.Error("a second one there is more than 1.25 x 2/4")
	}
	s := newBench(t, 4, newSessionRing)
	for range 10 {
		a, c := s.query(1), s.query(2)
		a.Session, c.Session = 5, 5
		s.sendQuery(a)
		s.sendQuery(c)
		s.want(c, a.Replica, "one session")
	}
	s = newBench(t, 2, newSessionRing)
	s.want(s.send(1), 0, "no session: fewest in a minute")
	s.want(s.send(1), 1, "no session: fewest in a minute")
}

func TestRingIsStable(t *testing.T) {
	r := newRing(5)
	moved := 0
	for k := range uint64(1000) {
		a, _ := r.walk(mix(k), func(int) bool { return true })
		if b, ok := r.walk(mix(k), func(i int) bool { return i != 3 }); !ok || a != 3 && a != b {
			t.Fatalf("key %d moved from %d to %d though 3 left", k, a, b)
		} else if a != b {
			moved++
		}
	}
	if moved < 100 || moved > 320 {
		t.Errorf("%d of 1000 keys were at one of five replicas, want about 200", moved)
	}
}

func TestDualMap(t *testing.T) {
	b := newBench(t, 4, newDualMap)
	seen := map[int]bool{}
	for i := range 40 {
		q := b.send(1, 2, uint64(100+i%2)) // a common head, two families
		seen[q.Replica] = true
		b.end(q)
	}
	if len(seen) > 4 || len(seen) < 1 {
		t.Errorf("two families went to %v, want at most two replicas each", seen)
	}
	r := b.r.(*dualMap)
	q := b.send(1, 2, 100)
	r.prefill[q.Replica] += 1e6
	if again := b.send(1, 2, 100); again.Replica == q.Replica {
		t.Error("its TTFT misses the limit: the other candidate")
	}
}

func TestSkyWalker(t *testing.T) {
	b := newBench(t, 2, newSkyWalker)
	b.poll(0, 1, 0, 0)
	b.poll(1, 0, 0, 0)
	b.want(b.send(1, 2), 1, "nobody waits there")
	b.poll(1, 2, 0, 0)
	b.want(b.send(1, 2), replay.Hold, "somebody waits everywhere")
	b.poll(0, 0, 0, 0)
	b.poll(1, 0, 0, 0)
	b.want(b.send(1, 2), 1, "the longest match")
}

// Every rule serves everything, is the same twice, keeps nothing in its books, and lives through a crash.
func TestConformance(t *testing.T) {
	tr, err := trace.Synthetic{
		Rate: 40, Requests: 200, Prompt: trace.Lengths{Min: 50, Max: 900}, Output: trace.Lengths{Min: 1, Max: 90},
		Tenants: 10, TenantTokens: 1024, Seed: 3,
	}.Trace()
	if err != nil {
		t.Fatal(err)
	}
	w := replay.Open("synthetic", tr)
	for _, p := range Table {
		t.Run(p.Name, func(t *testing.T) { conforms(t, p, w) })
	}
}

func conforms(t *testing.T, p replay.Policy, w *replay.Workload) {
	t.Helper()
	var made []replay.Router
	p = kept(p, &made)
	c := replay.Config{
		Fleet: replay.Fleet{{Count: 4}}, Policy: p, LBDs: 2, Seed: 3, NonStreaming: .2,
		Faults: []replay.Fault{{Replica: 1, At: 2 * time.Second, For: time.Second}},
	}
	a, err := replay.Run(c, w)
	if err != nil {
		t.Fatal(err)
	}
	if a.Completed+a.Failed != 200 || a.Completed < 150 {
		t.Errorf("%d completed, %d failed, want 200", a.Completed, a.Failed)
	}
	emptyBooks(t, p.Name, made)
	b, err := replay.Run(c, w)
	if err != nil || a.TTFT != b.TTFT || a.E2E != b.E2E || a.HitRate != b.HitRate {
		t.Errorf("two runs differ: %v, %+v, %+v", err, a.TTFT, b.TTFT)
	}
}

// Behind refusals a rule serves what would be in time, and its books do not know of the rest: neither its counts, nor
// what it believes to be cached. Nothing that is not streamed, or sent by another lbd, is forgotten.
func TestLimited(t *testing.T) {
	tr, err := trace.Synthetic{
		Rate: 60, Requests: 1500, Prompt: trace.Lengths{Min: 50, Max: 1500}, Output: trace.Lengths{Min: 1, Max: 200},
		Tenants: 10, TenantTokens: 1024, Seed: 3,
	}.Trace()
	if err != nil {
		t.Fatal(err)
	}
	w := replay.Open("synthetic", tr)
	for _, name := range []string{"lmetric", "smetric", "dynamo-events"} {
		rule, _ := Lookup(name)
		var made []replay.Router
		rule = kept(rule, &made)
		p := Limited(rule, "-limited")
		c := replay.Config{
			Fleet: replay.Fleet{{Count: 2}}, Policy: p, Seed: 3, Admission: replay.Limits{TTFT: 300 * time.Millisecond},
			Faults: []replay.Fault{{Replica: 1, At: 20 * time.Second, For: time.Second}},
		}
		run := func(c replay.Config) *replay.Result {
			t.Helper()
			made = nil
			res, err := replay.Run(c, w)
			if err != nil {
				t.Fatal(err)
			}
			if res.Completed+res.Failed != 1500 {
				t.Errorf("%s: %d completed, %d failed; want 1500", p.Name, res.Completed, res.Failed)
			}
			emptyBooks(t, p.Name, made)
			return res
		}
		a := run(c)
		if a.Late == 0 || a.Completed < 1000 {
			t.Errorf("%s: %d refused, %d completed; want some of 1500 refused", p.Name, a.Late, a.Completed)
		}
		c.LBDs = 2
		if b := run(c); b.TTFT.P99 > 600 {
			t.Errorf("%s: p99 %.0f ms with two lbds; want what the other one sent counted", p.Name, b.TTFT.P99)
		}
		c.LBDs, c.Policy, c.Admission = 1, rule, replay.Limits{}
		if b := run(c); b.Late != 0 || b.TTFT.P99 <= a.TTFT.P99 {
			t.Errorf("%s without: %d refused, p99 %v; behind refusals %v", name, b.Late, b.TTFT.P99, a.TTFT.P99)
		}
	}
}

// A prefill counts until the first token, also where the answer is not streamed and no router hears of that.
func TestLimitedWithoutStreams(t *testing.T) {
	tr, err := trace.Synthetic{
		Rate: 10, Requests: 300, Prompt: trace.Lengths{Min: 1000, Max: 1500}, Output: trace.Lengths{Min: 200, Max: 300}, Seed: 3,
	}.Trace()
	if err != nil {
		t.Fatal(err)
	}
	rule, _ := Lookup("lmetric")
	res, err := replay.Run(replay.Config{
		Fleet: replay.Fleet{{Count: 2}}, Policy: Limited(rule, "-limited"), NonStreaming: 1, Admission: replay.Limits{TTFT: 500 * time.Millisecond},
	}, replay.Open("synthetic", tr))
	if err != nil || res.Late != 0 || res.TTFT.P99 > 400 {
		t.Errorf("%v, %d refused, p99 %.0f ms; want nobody refused where nobody waits", err, res.Late, res.TTFT.P99)
	}
}

// What is refused was never sent: nobody takes it for cached there.
func TestRefusedIsNotCached(t *testing.T) {
	for _, name := range []string{"lmetric", "smetric"} {
		rule, _ := Lookup(name)
		p := Limited(rule, "-limited")
		var seen []int
		make := p.New
		p.New = func(s replay.Setup) replay.Router { return &matched{Router: make(s), seen: &seen} }
		blocks := fresh(40, 7)
		_, err := replay.Run(replay.Config{
			Fleet: replay.Fleet{{Count: 2}}, Policy: p, Admission: replay.Limits{TTFT: 50 * time.Millisecond},
		}, replay.Open("long", trace.Of(512,
			trace.Arrival{PromptTokens: 40 * 512, OutputTokens: 1, Blocks: blocks}, trace.Arrival{At: time.Second, PromptTokens: 40 * 512, OutputTokens: 1, Blocks: blocks})))
		if err != nil || len(seen) != 2 || slices.Max(seen) != 0 {
			t.Errorf("%s: %v, %v tokens believed cached at the picks; want none", name, err, seen)
		}
	}
}

// matched notes what the index of a rule says before each pick.
type matched struct {
	replay.Router
	seen *[]int
}

func (m *matched) Pick(now time.Duration, q *replay.Query, candidates []int) int {
	var tree *index
	switch r := m.Router.(type) {
	case *lmetric:
		tree = r.tree
	case *smetric:
		tree = r.tree
	}
	*m.seen = append(*m.seen, slices.Max(tree.match(now, q)))
	return m.Router.Pick(now, q, candidates)
}

// kept notes the routers that a policy makes.
func kept(p replay.Policy, made *[]replay.Router) replay.Policy {
	inner := p.New
	p.New = func(s replay.Setup) replay.Router {
		r := inner(s)
		*made = append(*made, r)
		return r
	}
	return p
}

// emptyBooks holds that nothing of what has ended is still counted.
func emptyBooks(t *testing.T, name string, made []replay.Router) {
	t.Helper()
	if len(made) == 0 {
		t.Errorf("%s: no router was made", name)
	}
	for _, r := range made {
		if c, ok := r.(interface {
			books() (float64, float64, float64)
		}); !ok {
			t.Errorf("%s keeps no books", name)
		} else if load, prefill, tokens := c.books(); load != 0 || abs(prefill) > 1e-6 || abs(tokens) > 1e-6 {
			t.Errorf("%s ends with load %v, prefill %v, tokens %v", name, load, prefill, tokens)
		}
	}
}

func (c *counts) books() (load, prefill, tokens float64) {
	for i := range c.load {
		load += float64(c.load[i])
		prefill += abs(c.prefill[i])
		tokens += abs(c.tokens[i])
	}
	return load, prefill, tokens
}

func abs(x float64) float64 { return max(x, -x) }

func TestOracleKnowsCaches(t *testing.T) {
	// Two families of long prompts, far apart in time: each must stay at one replica.
	var arrivals []trace.Arrival
	for i := range 20 {
		family := uint64(i % 2)
		blocks := make([]uint64, 8)
		for j := range blocks {
			blocks[j] = family<<32 | uint64(j)
		}
		arrivals = append(arrivals, trace.Arrival{At: time.Duration(i) * 2 * time.Second, PromptTokens: 4096, OutputTokens: 5, Blocks: blocks})
	}
	for _, name := range []string{"oracle", "oracle-ttft", "dynamo-events"} {
		p, _ := Lookup(name)
		res, err := replay.Run(replay.Config{Fleet: replay.Fleet{{Count: 3}}, Policy: p, Seed: 1}, replay.Open("families", trace.Of(512, arrivals...)))
		if err != nil {
			t.Fatal(err)
		}
		if res.HitRate < .85 {
			t.Errorf("%s: hit rate %.2f, want 18 of 20 prompts cached", name, res.HitRate)
		}
	}
}

func TestLookup(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range Table {
		if got, ok := Lookup(p.Name); !ok || got.Name != p.Name || seen[p.Name] || p.What == "" {
			t.Errorf("%q is not found, twice there or says nothing", p.Name)
		}
		seen[p.Name] = true
	}
	if _, ok := Lookup("nobody"); ok {
		t.Error("an unknown name is found")
	}
}
