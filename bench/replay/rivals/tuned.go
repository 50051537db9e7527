package rivals

import (
	"fmt"
	"time"

	"lbd/bench/replay"
)

// Tunable is a rule with settings, and the settings that were tried for it. Which ones are taken was decided on the tuning
// cells of bench/replay/placement alone; bench/results/placement.md shows what each of them reached there.
type Tunable struct {
	// Name is that of the rule in Table with its shipped settings.
	Name string
	// Tried are the settings, the shipped ones among them where they are of the same kind.
	Tried []Setting
	// Taken is the number of the best of Tried. Where that is the Shipped setting there is no tuned rule.
	Taken   int
	Shipped bool
}

// Setting is one way to set a rule.
type Setting struct {
	Label string
	New   func(replay.Setup) replay.Router
	Poll  time.Duration // 0 means the run's
}

// Policy is a setting as a rule of its own.
func (t *Tunable) Policy(setting int) replay.Policy {
	s := t.Tried[setting]
	return replay.Policy{Name: t.Name + " (" + s.Label + ")", New: s.New, Poll: s.Poll}
}

// Setup is the name under which results of a rule of Table are kept: that of the setting taken, for a tuned one.
func Setup(name string) string {
	for i := range Tunables {
		if t := &Tunables[i]; t.Name+"-tuned" == name {
			return t.Policy(t.Taken).Name
		}
	}
	return name
}

func tuned() (all []replay.Policy) {
	for i := range Tunables {
		t := &Tunables[i]
		if t.Shipped {
			continue
		}
		p := t.Policy(t.Taken)
		p.Name, p.What = t.Name+"-tuned", t.Name+" with "+t.Tried[t.Taken].Label
		all = append(all, p)
	}
	return all
}

// Tunables lists the rules that have settings worth trying. Rules without any (lmetric, c3, the naive ones, least-request,
// session-hash) run as they are.
var Tunables = []Tunable{
	{Name: "polled-two-choices", Taken: 2, Tried: []Setting{
		{"polls every 30 s", newPolledTwo, polledTwoPoll}, {"polls every 1 s", newPolledTwo, time.Second},
		{"polls every 100 ms", newPolledTwo, vllmDPPoll},
	}},
	{Name: "prequal", Tried: settings("Q_RIF %g", makePrequal, .1, .3, .5, .7, .84, .95)},
	{Name: "prefix-hash", Taken: 2, Tried: settings("load bound %g", makePrefixHash, 1, 1.05, 1.1, 1.25, 1.5, 2)},
	{Name: "aibrix-prefix", Taken: 1, Tried: []Setting{
		aibrix(4, 1), aibrix(8, 1), aibrix(8, 2), aibrix(16, 1), aibrix(16, 2), aibrix(32, 2),
	}},
	{Name: "sglang-cache-aware", Taken: 5, Tried: []Setting{
		sglang(.3, 64, 1.5), sglang(.3, 32, 1.1), sglang(.3, 16, 1.25), sglang(.3, 8, 1.1), sglang(.5, 16, 1.25), sglang(.1, 16, 1.25), sglang(.1, 8, 1.1), sglang(.02, 16, 1.25),
	}},
	{Name: "smg-cache-aware", Taken: 4, Tried: []Setting{
		smg(.3, 1.5, 64), smg(.3, 1.5, 16), smg(.3, 1.25, 8), smg(.3, 1.1, 4), smg(.3, 1.05, 2), smg(.1, 1.1, 4), smg(.5, 1.25, 8),
	}},
	{Name: "llmd-blend", Taken: 4, Tried: []Setting{
		blend(3, 2, 2), blend(1, 2, 2), blend(1, 1, 4), blend(3, 2, 8), blend(1, 4, 1), blend(1, 4, 8), blend(1, 8, 1),
	}},
	{Name: "llmd-sticky", Taken: 2, Tried: []Setting{
		sticky(.8, .1), sticky(.9, .25), sticky(.8, .25), sticky(.8, 1), sticky(.8, 4), sticky(.5, .25), sticky(.5, 1), sticky(.3, .25), sticky(.3, 1),
	}},
	{Name: "preble", Taken: 5, Tried: []Setting{
		prebles(.5, 3*time.Minute), prebles(.5, time.Minute), prebles(.5, 20*time.Second), prebles(.25, time.Minute), prebles(.75, time.Minute), prebles(.9, time.Minute), prebles(.75, 20*time.Second),
	}},
	{Name: "skywalker", Shipped: true, Tried: settings("pushes up to %g waiting", makeSkyWalker, 0, 1, 2, 4)},
	{Name: "dualmap", Taken: 1, Tried: settings("limit %g ms", makeDualMap, 50, 100, 250, 500, 1000, 2000)},
	{Name: "smetric", Taken: 9, Tried: []Setting{
		smetrics(1e-4, .2, .1), smetrics(1e-5, .2, .1), smetrics(1e-5, .5, .1), smetrics(1e-5, 1, .1), smetrics(1e-5, .2, .5), smetrics(1e-5, .1, .3), smetrics(1e-5, .05, .1), smetrics(1e-4, .05, .1), smetrics(1e-4, .2, .9), smetrics(1e-5, .2, .9),
	}},
	{Name: "dynamo", Taken: 5, Tried: []Setting{
		dynamos(1, dynamoTTL), dynamos(.5, dynamoTTL), dynamos(2, dynamoTTL), dynamos(4, dynamoTTL), dynamos(8, dynamoTTL), dynamos(16, dynamoTTL), dynamos(64, dynamoTTL), dynamos(4, indexTTL),
	}},
}

// settings are those of a rule with one knob, at the run's poll period.
func settings(label string, make func(replay.Setup, float64) replay.Router, values ...float64) (all []Setting) {
	for _, v := range values {
		all = append(all, Setting{Label: fmt.Sprintf(label, v), New: func(s replay.Setup) replay.Router { return make(s, v) }})
	}
	return all
}

// aibrix has room in its index for what the replicas can cache; the shipped 200,000 blocks of 4 characters are less.
func aibrix(imbalance int, deviation float64) Setting {
	return Setting{Label: fmt.Sprintf("imbalance %d, %g sigma, full index", imbalance, deviation), New: func(s replay.Setup) replay.Router {
		return makeAIBrixPrefix(s, s.Replicas[0].KVTokens(), imbalance, deviation)
	}}
}

func sglang(threshold float64, abs int, rel float64) Setting {
	return Setting{Label: fmt.Sprintf("threshold %g, abs %d, rel %g", threshold, abs, rel), New: func(s replay.Setup) replay.Router {
		return newCacheAware(s, threshold, abs, rel, 1<<26, 120*time.Second)
	}}
}

func smg(threshold, factor, load float64) Setting {
	return Setting{Label: fmt.Sprintf("threshold %g, gate x%g +%g, polls of the run", threshold, factor, load), New: func(s replay.Setup) replay.Router {
		return makeSMGCacheAware(s, threshold, factor, load)
	}}
}

func blend(prefix, queue, kv float64) Setting {
	return Setting{Label: fmt.Sprintf("weights %g/%g/%g", prefix, queue, kv), Poll: llmdPoll, New: func(s replay.Setup) replay.Router {
		return makeLLMDBlend(s, prefix, queue, kv)
	}}
}

func sticky(affinity, penalty float64) Setting {
	return Setting{Label: fmt.Sprintf("affinity %g, %g s, calibrated", affinity, penalty), New: func(s replay.Setup) replay.Router {
		return calibratedSticky(s, affinity, penalty)
	}}
}

func prebles(exploit float64, window time.Duration) Setting {
	return Setting{Label: fmt.Sprintf("exploits above %g, window %v", exploit, window), New: func(s replay.Setup) replay.Router {
		return makePreble(s, exploit, window)
	}}
}

// smetrics: 1e-5 is the ratio of attention to linear work per character of an 8B model (0.79 ns per pair of tokens to
// 21.6 us per token, 4 characters each: 0.9e-5).
func smetrics(attention, base, hitRatio float64) Setting {
	return Setting{Label: fmt.Sprintf("attention %g, base %g s, hit ratio %g", attention, base, hitRatio), New: func(s replay.Setup) replay.Router {
		return makeSmetric(s, smetricParameters{attention, base, hitRatio})
	}}
}

func dynamos(scale float64, ttl time.Duration) Setting {
	return Setting{Label: fmt.Sprintf("prefill scale %g, %v", scale, ttl), New: func(s replay.Setup) replay.Router {
		return makeDynamo(s, scale, ttl)
	}}
}
