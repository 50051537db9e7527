package sim

import (
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"lbd/bench/sim/engine"
)

// meters are the vllm: instruments of one run of a replica.
type meters struct {
	profile Profile
	model   string
	started time.Time
	multi   bool

	mu     sync.Mutex
	groups [][]*family // V0: one per multiprocess file; V1: one in all
	http   httpMeters
	stuck  func() bool // gauges frozen by a fault

	running, waiting, swapped, usage *series
	hitRate, cpuUsage, cpuHits       *series // V0
	counters                         engineCounters
	seen                             engine.Stats // counters already accounted for

	ttft, itl, perToken, iteration              *series
	e2e, queue, inference, prefill, decode      *series
	inQueue                                     *series // V0's second queue histogram
	promptHist, outputHist, maxTokensHist, nReq *series
	maxGenHist, computedHist                    *series
	success                                     map[string]*series
	throughput                                  [2]*series // V0: prompt and generation tokens per second
	throughputAt                                time.Time
	throughputFrom                              engine.Stats
	sleep                                       map[string]*series
	lora                                        *series
}

// engineCounters follow the engine's own counters.
type engineCounters struct {
	prompt, generation, total, preempted *series
	queries, hits                        *series
	computed, local, cached              *series
}

func (m *meters) now() float64 { return unixSeconds(time.Now()) }

func unixSeconds(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }

func newMeters(cfg Config, eng engine.Config, stuck func() bool) *meters {
	m := &meters{
		profile: cfg.Profile, model: cfg.Model, started: time.Now(), stuck: stuck,
		success: make(map[string]*series), sleep: make(map[string]*series),
	}
	if cfg.Profile == ProfileV064 {
		m.multi = true
		m.registerV0(eng, rand.New(rand.NewPCG(cfg.Seed, 0x6d756c7469)))
	} else {
		m.registerV1(eng)
	}
	m.throughputAt = m.started
	return m
}

// instrument makes a family with one child.
func (m *meters) instrument(group int, kind, name, help string, bounds []float64, labels ...label) *series {
	f := &family{name: name, help: help, kind: kind, bounds: bounds}
	m.groups[group] = append(m.groups[group], f)
	s := f.child(m.now(), labels...)
	s.shown = !m.multi // V1 calls labels() at start, V0 at the first observation
	return s
}

// gauges stores what the scheduler reports after a step.
func (m *meters) gauges(st engine.Stats, usage float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.count(st)
	if m.stuck() {
		return
	}
	m.running.set(float64(st.Running))
	m.waiting.set(float64(st.Waiting))
	m.usage.set(usage)
	if m.multi {
		m.gaugesV0(st)
	}
}

// count moves the counters on by what the engine's have moved.
func (m *meters) count(st engine.Stats) {
	c, was := &m.counters, m.seen
	m.seen = st
	c.prompt.add(float64(st.PromptTokens - was.PromptTokens))
	c.generation.add(float64(st.GenerationTokens - was.GenerationTokens))
	c.preempted.add(float64(st.Preemptions - was.Preemptions))
	if m.multi {
		c.total.add(float64(st.PromptTokens - was.PromptTokens + st.GenerationTokens - was.GenerationTokens))
		return
	}
	c.queries.add(float64(st.PrefixQueries - was.PrefixQueries))
	hits := float64(st.PrefixHits - was.PrefixHits)
	c.hits.add(hits)
	c.local.add(hits)
	c.cached.add(hits)
	c.computed.add(float64(st.PrefillTokens - was.PrefillTokens))
}

// step records what one step did to its requests, and stamps them.
func (m *meters) step(evs []engine.Event, live map[uint64]*generation, now time.Time, speed float64, prefilled, generated uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := prefilled + generated; n > 0 {
		m.iteration.observe(float64(n))
	}
	for _, ev := range evs {
		g := live[ev.ID]
		if g == nil {
			continue
		}
		if ev.First {
			g.first, g.cached = now, ev.CachedTokens
			g.began = g.arrived.Add(time.Duration(float64(ev.Queued) / speed))
			m.ttft.observe(now.Sub(g.arrived).Seconds())
		} else if ev.Tokens > 0 {
			m.itl.observe(now.Sub(g.last).Seconds() / float64(ev.Tokens))
		}
		if ev.Tokens > 0 {
			g.last = now
		}
		if ev.Finished {
			m.finished(g, now)
		}
	}
}

func (m *meters) finished(g *generation, now time.Time) {
	m.success[g.reason].add(1)
	m.e2e.observe(now.Sub(g.arrived).Seconds())
	m.queue.observe(g.began.Sub(g.arrived).Seconds())
	m.inference.observe(now.Sub(g.began).Seconds())
	prefill, decode := g.first.Sub(g.began).Seconds(), now.Sub(g.first).Seconds()
	if m.multi {
		// v0.6.4 records the two the wrong way round (llm_engine.py,
		// _get_stats).
		prefill, decode = decode, prefill
		m.inQueue.observe(g.began.Sub(g.arrived).Seconds())
	}
	m.prefill.observe(prefill)
	m.decode.observe(decode)
	m.promptHist.observe(float64(g.prompt))
	m.outputHist.observe(float64(g.want))
	m.maxGenHist.observe(float64(g.want))
	m.nReq.observe(float64(g.n))
	m.maxTokensHist.observe(float64(g.maxTokens))
	if !m.multi {
		m.computedHist.observe(float64(g.prompt - g.cached))
		if g.want > 1 {
			m.perToken.observe(now.Sub(g.first).Seconds() / float64(g.want-1))
		}
	}
}

// page renders /metrics; only is the name[] filter of v0.19's mount.
func (m *meters) page(only map[string]bool, vllm bool) []byte {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := &page{multi: m.multi, only: only}
	if !m.multi {
		pythonFamilies(p, m.started)
	}
	if vllm {
		for _, g := range m.groups {
			for _, f := range g {
				p.family(f)
			}
		}
	}
	if !m.multi {
		m.http.write(p)
	}
	return p.buf
}

// Bucket series of vllm/engine/metrics.py and vllm/v1/metrics/loggers.py.
var (
	ttftBuckets = []float64{.001, .005, .01, .02, .04, .06, .08, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10}
	itlBuckets  = []float64{.01, .025, .05, .075, .1, .15, .2, .3, .4, .5, .75, 1, 2.5}
	timeBuckets = []float64{.3, .5, .8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60}
	nBuckets    = []float64{1, 2, 5, 10, 20}
	iterBuckets = []float64{1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096}
)

func with(base []float64, more ...float64) []float64 {
	return append(append([]float64(nil), base...), more...)
}

// tokenBuckets is build_1_2_5_buckets(max_model_len).
func tokenBuckets(maxLen int) []float64 {
	var b []float64
	for scale := 1; ; scale *= 10 {
		for _, m := range []int{1, 2, 5} {
			if m*scale > maxLen {
				return b
			}
			b = append(b, float64(m*scale))
		}
	}
}

func pythonBool(b *bool) string {
	if b != nil && *b {
		return "True"
	}
	return "False"
}

func itoa(n int) string { return strconv.Itoa(n) }
