package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"lbd/bench/report/page"
)

var options = Options{Draws: 200, Seed: 1, MaxErrorRate: .01}

func compare(t *testing.T, environments ...Environment) *Comparison {
	t.Helper()
	c, err := Compare(environments, options)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func figure(t *testing.T, c *Comparison, name string) Figure {
	t.Helper()
	for _, f := range c.Cells[0].Scopes[0].Figures {
		if f.Name == name {
			return f
		}
	}
	t.Fatalf("no figure %q", name)
	return Figure{}
}

func TestFasterIsBetter(t *testing.T) {
	slow, fast := traffic{service: .09, rate: 10, n: 600}, traffic{service: .07, rate: 10, n: 600}
	c := compare(t, slow.environment("baseline", 5, 1), fast.environment("managed", 5, 2))
	f := figure(t, c, "TTFT p50")
	if f.Outcomes[1] != Better || f.Differences[1].High >= 0 {
		t.Errorf("TTFT p50 is %s with %v; want better", f.Outcomes[1], f.Differences[1])
	}
	if c.Verdict.Tone != page.Good || !strings.HasPrefix(c.Verdict.Headline, "managed did better than baseline: TTFT p50 ") {
		t.Errorf("the verdict is %s, %q", c.Verdict.Tone, c.Verdict.Headline)
	}
	back := compare(t, fast.environment("managed", 5, 2), slow.environment("baseline", 5, 1))
	if back.Verdict.Tone != page.Bad || !strings.HasPrefix(back.Verdict.Headline, "baseline did worse than managed") {
		t.Errorf("the other way round it is %s, %q", back.Verdict.Tone, back.Verdict.Headline)
	}
}

// Throughput of an open loop is what was sent: nobody is better by it.
func TestOpenLoopThroughputJudgesNobody(t *testing.T) {
	slow, fast := traffic{service: .2, rate: 10, n: 600}, traffic{service: .01, rate: 10, n: 600}
	c := compare(t, slow.environment("a", 5, 1), fast.environment("b", 5, 2))
	if f := figure(t, c, "output"); !f.Given || f.Outcomes[1] == Better {
		t.Errorf("output tokens/s of an open loop: given %v, %s", f.Given, f.Outcomes[1])
	}
}

func TestNoDifference(t *testing.T) {
	queue := traffic{service: .07, rate: 10, n: 300}
	c := compare(t, queue.environment("a", 3, 1), queue.environment("b", 3, 2))
	if c.Verdict.Tone == page.Good || c.Verdict.Tone == page.Bad {
		t.Errorf("equal environments: %s, %q", c.Verdict.Tone, c.Verdict.Headline)
	}
	same := compare(t, queue.environment("a", 3, 1), queue.environment("b", 3, 1))
	if !strings.Contains(same.Verdict.Headline, "are equal") {
		t.Errorf("the same figures twice: %q", same.Verdict.Headline)
	}
}

func TestOneRepeatIsNoEvidence(t *testing.T) {
	slow, fast := traffic{service: .09, rate: 10, n: 600}, traffic{service: .01, rate: 10, n: 600}
	c := compare(t, slow.environment("a", 1, 1), fast.environment("b", 1, 2))
	if c.Verdict.Tone != page.Unclear || !strings.HasPrefix(c.Verdict.Headline, "Not enough evidence") {
		t.Errorf("one repeat of each: %s, %q", c.Verdict.Tone, c.Verdict.Headline)
	}
	for _, f := range c.Cells[0].Scopes[0].Figures {
		if f.Outcomes[1] != NoEvidence {
			t.Errorf("%s of one repeat is %s", f.Name, f.Outcomes[1])
		}
	}
}

func TestDifferentWorkloadsAreRefused(t *testing.T) {
	base := traffic{service: .07, rate: 10, n: 100, given: map[string]string{"input": "512"}}
	for _, c := range []struct {
		name   string
		change func(*traffic)
		want   string
	}{
		{"rate", func(tr *traffic) { tr.rate = 20 }, "rate: 10 in a, 20 in b"},
		{"field", func(tr *traffic) { tr.given = map[string]string{"input": "1024"} }, "input: 512 in a, 1024 in b"},
		{"absent", func(tr *traffic) { tr.given = nil }, "input: 512 in a, not said in b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			other := base
			c.change(&other)
			_, err := Compare([]Environment{base.environment("a", 2, 1), other.environment("b", 2, 1)}, options)
			var differ *WorkloadError
			if !errors.As(err, &differ) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v; want one with %q", err, c.want)
			}
		})
	}
}

// Properties that only the requests tell may differ by chance, not by more.
func TestMeasuredWorkloads(t *testing.T) {
	for _, c := range []struct {
		a, b Measured
		fits bool
	}{
		{Measured{"n", 100, 1}, Measured{"n", 104, 1}, true},
		{Measured{"n", 100, 1}, Measured{"n", 105, 1}, false},
		{Measured{"n", 100, 0}, Measured{"n", 101.9, 0}, true},
		{Measured{"n", 100, 0}, Measured{"n", 103, 0}, false},
	} {
		w := Differences(Workload{Measured: []Measured{c.a}}, Workload{Measured: []Measured{c.b}})
		if (len(w) == 0) != c.fits {
			t.Errorf("%v and %v: %v; want them to fit: %v", c.a, c.b, w, c.fits)
		}
	}
}

func TestFailedRunsAreNotTrusted(t *testing.T) {
	good, bad := traffic{service: .07, rate: 10, n: 100}, traffic{service: .07, rate: 10, n: 100, failed: 2}
	c := compare(t, good.environment("a", 2, 1), bad.environment("b", 2, 1))
	if len(c.Faults) != 2 || !strings.Contains(c.Faults[0], "2 of 100 requests failed (2.00 %); want at most 1.00 %") {
		t.Errorf("faults %q", c.Faults)
	}
	if c.Verdict.Tone != page.Failed {
		t.Errorf("the verdict is %s, %q", c.Verdict.Tone, c.Verdict.Headline)
	}
}

// Several loads are cells of one curve, in order of the load.
func TestSeveralLoads(t *testing.T) {
	var a, b Environment
	a.Name, b.Name = "a", "b"
	for _, rate := range []float64{8, 2, 4} {
		queue := traffic{service: .05, rate: rate, n: 100, models: []string{"x", "y"}}
		a.Runs, b.Runs = append(a.Runs, queue.environment("", 2, 1).Runs...), append(b.Runs, queue.environment("", 2, 2).Runs...)
	}
	c := compare(t, a, b)
	var names []string
	for _, cell := range c.Cells {
		names = append(names, cell.Name)
		if len(cell.Scopes) != 3 || cell.Scopes[1].Model != "x" {
			t.Errorf("cell %s has %d scopes; want all requests, x and y", cell.Name, len(cell.Scopes))
		}
	}
	if got := strings.Join(names, "; "); got != "2.00 requests/s; 4.00 requests/s; 8.00 requests/s" {
		t.Errorf("cells %s", got)
	}
	p := c.Page()
	if p.Sections[0].Title != "Over the load" || len(p.Sections[0].Charts) != 3 {
		t.Errorf("the page begins with %q of %d charts", p.Sections[0].Title, len(p.Sections[0].Charts))
	}
}

// Repeats are set against those that were sent the same requests.
func TestPairing(t *testing.T) {
	queue := traffic{service: .07, rate: 10, n: 100}
	a, b := queue.environment("a", 3, 1), queue.environment("b", 3, 2)
	b.Runs[0], b.Runs[2] = b.Runs[2], b.Runs[0]
	if c := compare(t, a, b); !c.Cells[0].Paired[1] || c.Cells[0].Repeats[1][0].Fingerprint != c.Cells[0].Repeats[0][0].Fingerprint {
		t.Error("repeats of the same seeds in another order are not paired")
	}
	b.Runs = b.Runs[:2]
	if c := compare(t, a, b); c.Cells[0].Paired[1] {
		t.Error("three repeats are paired with two")
	}
}

func TestOutputs(t *testing.T) {
	slow, fast := traffic{service: .09, rate: 10, n: 100, models: []string{"x", "y"}}, traffic{service: .07, rate: 10, n: 100, models: []string{"x", "y"}}
	o := options
	o.Notes = []string{"Simulated."}
	c, err := Compare([]Environment{slow.environment("baseline", 2, 1), fast.environment("managed", 2, 2)}, o)
	if err != nil {
		t.Fatal(err)
	}
	var text, doc, html bytes.Buffer
	if err := errors.Join(c.WriteText(&text), c.WriteJSON(&doc), c.Page().WriteHTML(&html)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Simulated.", "TTFT p99 ms", "2 repeats of managed", "as sent", "95 % interval"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the text lacks %q", want)
		}
	}
	var j struct {
		Schema  string
		Verdict struct{ Headline string }
		Cells   []struct {
			Scopes []struct {
				Model   string
				Figures []struct {
					Name        string
					Repeats     [][]float64
					Differences []struct {
						Environment string
						Percent     *float64
					}
				}
			}
		}
	}
	if err := json.Unmarshal(doc.Bytes(), &j); err != nil {
		t.Fatal(err)
	}
	f := j.Cells[0].Scopes[0].Figures[0]
	if j.Schema != ReportSchema || j.Verdict.Headline == "" || len(j.Cells[0].Scopes) != 3 || len(f.Repeats) != 2 || len(f.Repeats[0]) != 2 ||
		f.Differences[0].Environment != "managed" || f.Differences[0].Percent == nil {
		t.Errorf("JSON %.600s", doc.String())
	}
	for _, want := range []string{"<title>baseline against managed</title>", "Simulated.", "Load of the replicas", "<svg", c.Verdict.Headline} {
		if !strings.Contains(html.String(), want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}
