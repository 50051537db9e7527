package main

import (
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"lbd/bench/load"
	"lbd/bench/trace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func noise(n int, mean, spread float64, seed uint64) []float64 {
	rng := rand.New(rand.NewPCG(seed, 1))
	v := make([]float64, n)
	for i := range v {
		v[i] = mean + spread*rng.NormFloat64()
	}
	return v
}

// A difference is decided when there is one, and not when there is none; too few requests decide nothing.
func TestDiffer(t *testing.T) {
	a, b := noise(500, 300, 50, 1), noise(500, 320, 50, 2)
	if d := differ(a, b); d.sign() != -1 || d.mean > -10 || d.mean < -30 {
		t.Errorf("%v; want some 20 ms in favour of the first", d)
	}
	if d := differ(b, a); d.sign() != 1 {
		t.Errorf("%v; want the second", d)
	}
	if d := differ(a, noise(500, 300, 50, 3)); d.sign() != 0 {
		t.Errorf("%v between equals; want nothing", d)
	}
	if d := differ(a[:10], b[:10]); d.sign() != 0 {
		t.Errorf("%v from ten requests; want nothing", d)
	}
}

// Requests of one burst share their fate: a single bad burst is no difference of strategies, however many requests it had.
func TestDifferDrawsBlocks(t *testing.T) {
	a, b := noise(500, 300, 5, 1), noise(500, 300, 5, 2)
	for i := 100; i < 100+blockLength; i++ {
		a[i] += 400
	}
	if d := differ(a, b); d.sign() != 0 {
		t.Errorf("%v; want an interval that has 0", d)
	}
}

func TestVerdict(t *testing.T) {
	better, worse, even := difference{-2, -3, -1}, difference{2, 1, 3}, difference{0, -1, 1}
	for _, c := range []struct {
		replay, http difference
		want         string
	}{
		{better, better, "agree"}, {worse, worse, "agree"}, {better, worse, "**contradict**"}, {even, even, "neither decides"},
		{better, even, "only replay decides"}, {even, worse, "only HTTP decides"},
	} {
		p := pair{replay: c.replay, http: c.http}
		if got := p.verdict(); got != c.want {
			t.Errorf("%v and %v: %q; want %q", c.replay, c.http, got, c.want)
		}
	}
}

// What a client saw is counted from the scheduled time, past the warm-up, and a failure as a very late answer.
func TestRecordsAreCounted(t *testing.T) {
	s := &slice{arrivals: make([]trace.Arrival, 10)}
	records := make([]load.Record, 10)
	for i := range records {
		records[i] = load.Record{
			Index: i, Scheduled: time.Second, Dispatched: time.Second + 3*time.Millisecond, FirstContent: time.Second + 50*time.Millisecond,
			LastContent: time.Second + 90*time.Millisecond, Events: 5, OutputTokens: 5, PromptTokens: 100, CachedTokens: 25,
		}
	}
	records[9].Cause = load.CauseReset
	var one served
	s.add(&one, records)
	if len(one.TTFT) != 8 || one.TTFT[0] != 50 || one.TTFT[7] != failed || one.Failed != 1 || one.TPOT[0] != 10 || one.HitRate != .25 || one.LateMS != 3 {
		t.Errorf("%+v", one)
	}
	if g := one.good(limits); g != 7./8 {
		t.Errorf("good %v; want all but the failed one", g)
	}
	records[8].Status, records[8].Cause = http.StatusTooManyRequests, "status_429"
	one = served{}
	s.add(&one, records)
	if ttft, _ := one.answered(); one.Refused != 1 || one.Failed != 1 || len(ttft) != 6 || one.good(limits) != 6./8 {
		t.Errorf("%+v; want one refused, one failed and six good", one)
	}
}

// The table has both media, the ranking and the pairs; another setup is refused.
func TestMarkdown(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.json")
	r, err := openResults(path)
	if err != nil {
		t.Fatal(err)
	}
	set := setup{Requests: 500, Replicas: 4, Speed: 2, Strategies: []string{"cycle", "least-cost"}}
	if err := r.belongsTo(set); err != nil {
		t.Fatal(err)
	}
	one := func(name string, mean float64, seed uint64) served {
		return served{Strategy: name, TTFT: noise(400, mean, 20, seed), TPOT: make([]float64, 400)}
	}
	r.Rounds = append(r.Rounds, round{
		Seed: 1, Replay: []served{one("cycle", 300, 1), one("least-cost", 200, 2)}, HTTP: []served{one("cycle", 310, 3), one("least-cost", 190, 4)},
	})
	if err := r.save(); err != nil {
		t.Fatal(err)
	}
	again, err := openResults(path)
	if err != nil {
		t.Fatal(err)
	}
	text := again.markdown()
	for _, want := range []string{
		"Ranking in replay: least-cost, cycle. Over HTTP: least-cost, cycle. Pairs that contradict each other: 0 of 1.",
		"| cycle | HTTP | 3", "| cycle - least-cost | +", "| agree |",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the table lacks %q:\n%s", want, text)
		}
	}
	again.Setup.MaxTTFT, again.Rounds[0].HTTP[1].Refused = time.Second, 7
	text = again.markdown()
	for _, want := range []string{"later than 1s", "| 7 | 0 ms |"} {
		if !strings.Contains(text, want) {
			t.Errorf("the table with a limit lacks %q:\n%s", want, text)
		}
	}
	if strings.Contains(text, "Ranking in replay") {
		t.Error("what was refused is ranked by its times")
	}
	set.Speed = 3
	if err := again.belongsTo(set); err == nil {
		t.Error("rounds of another speed would be mixed")
	}
}

// The replay half, on a slice made here.
func TestReplayOfASlice(t *testing.T) {
	s := &slice{}
	for i := range 100 {
		s.arrivals = append(s.arrivals, trace.Arrival{At: time.Duration(i) * 100 * time.Millisecond, PromptTokens: 1000, OutputTokens: 20})
	}
	all, err := s.replay([]string{"cycle", "least-cost"}, 2, 1)
	if err != nil || len(all) != 2 || len(all[0].TTFT) != 80 || all[0].Failed != 0 {
		t.Fatalf("%+v %v", all, err)
	}
	s.refused.TTFT = time.Millisecond
	if all, err := s.replay([]string{"cycle", "least-cost"}, 2, 1); err != nil || all[0].Refused != 0 || all[1].Refused != 80 || all[1].Failed != 0 {
		t.Errorf("%+v %v; want all refused that somebody predicts", all, err)
	}
	if _, err := s.replay([]string{"nothing"}, 2, 1); err == nil {
		t.Error("an unknown strategy is no error")
	}
}
