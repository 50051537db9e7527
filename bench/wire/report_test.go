//go:build linux

package main

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
)

func TestMedianAndSpread(t *testing.T) {
	nan := math.NaN()
	for _, c := range []struct {
		v              []float64
		mid, low, high float64
	}{
		{[]float64{3, 1, 2}, 2, 1, 3},
		{[]float64{4, 1, 2, 3}, 2.5, 1, 4},
		{[]float64{nan, 5}, 5, 5, 5},
		{[]float64{math.Inf(1), 1, math.Inf(1)}, math.Inf(1), 1, math.Inf(1)},
	} {
		low, high := spread(c.v)
		if got := median(c.v); got != c.mid || low != c.low || high != c.high {
			t.Errorf("%v: %v, %v..%v; want %v, %v..%v", c.v, got, low, high, c.mid, c.low, c.high)
		}
	}
	if !math.IsNaN(median(nil)) || !math.IsNaN(median([]float64{nan})) {
		t.Error("the median of nothing is a number")
	}
}

func TestRatiosStayInTheirRound(t *testing.T) {
	got := ratios([]float64{2, math.NaN(), 6, 8}, []float64{1, 2, 0, 4})
	if got[0] != 2 || !math.IsNaN(got[1]) || !math.IsNaN(got[2]) || got[3] != 2 {
		t.Errorf("%v; want 2 NaN NaN 2", got)
	}
}

func named(t *testing.T, name string) cell {
	t.Helper()
	c, err := chosen(name)
	if err != nil {
		t.Fatal(err)
	}
	return c[0]
}

// A run of one cell leaves the others of an earlier run in place.
func TestKeep(t *testing.T) {
	old, fresh := sampled(t), sampled(t)
	fresh.Cells, fresh.Samples = fresh.Cells[1:], fresh.Samples[6:]
	fresh.Peers = append(fresh.Peers, party{"caddy", false})
	fresh.Samples[0].Outcome = &outcome{LeaveMute: []float64{7}}
	if err := fresh.keep(old); err != nil {
		t.Fatal(err)
	}
	text := fresh.markdown("wire")
	for _, want := range []string{"| lbd | 15 | 10..30 | 1 | 500 |", "before the first byte | ≤ 5 | 7 | 7..7 | not met |"} {
		if !strings.Contains(text, want) {
			t.Errorf("the report lacks %q:\n%s", want, text)
		}
	}
	if len(fresh.Samples) != 7 || fresh.Cells[0].Name != "post" {
		t.Errorf("%d samples, cells %v", len(fresh.Samples), fresh.Cells)
	}
	old.Machine = "another"
	if err := fresh.keep(old); err == nil {
		t.Error("results of two machines are mixed")
	}
}

// sampled is a report of made-up figures: lbd in 10 and 30 µs where nginx takes
// 20, so that rounds disagree.
func sampled(t *testing.T) *report {
	t.Helper()
	at := func(name string) measured {
		return measured{cell: named(t, name), Rounds: 3, Measure: 2, Commit: "abc"}
	}
	one := func(cell, peer string, round int, cpu int64) sample {
		return sample{Cell: cell, Peer: peer, Round: round, Outcome: &outcome{Seconds: 2, Answers: 1000, CPU: cpu * 1e6, P50: 1e6, P99: 2e6, Busy: 1}}
	}
	return &report{
		Machine: "2 x <CPU>", Versions: map[string]string{"lbd": "devel", "nginx": "1.2"}, Skipped: []string{"haproxy (haproxy: not found)"},
		Cells: []measured{at("post"), at("leave")}, Peers: []party{{"lbd", true}, {"nginx", false}},
		Samples: []sample{
			one("post", "lbd", 1, 10), one("post", "nginx", 1, 20),
			one("post", "lbd", 2, 30), one("post", "nginx", 2, 20),
			one("post", "lbd", 3, 15), {Cell: "post", Peer: "nginx", Round: 3, Failed: "nginx ended: exit status 1\nits log"},
			{Cell: "leave", Peer: "lbd", Round: 1, Outcome: &outcome{LeaveMute: []float64{0.2, 0.3, 0.4}, LeaveStall: []float64{-1, -1, -1}, LeaveStream: []float64{1}}},
		},
	}
}

func TestReport(t *testing.T) {
	r := sampled(t)
	got := r.markdown("wire")
	for _, want := range []string{
		"- **skipped**: haproxy (haproxy: not found)",
		"| peer | CPU µs/req | min..max | / nginx | req/s |",
		"| lbd | 15 | 10..30 | 1 | 500 |",
		"| nginx | 20 | 20..20 | 1 | 500 |",
		"nginx failed in round 3: nginx ended: exit status 1\n",
		"| post | CPU per request, of nginx's | ≤ 1 | 1 | 0.50..1.50 | met (rounds disagree) |",
		"| post | CPU per request, of HAProxy's | ≤ 1 | - | -..- | not measured |",
		"| leave | ms until the replica knows, before the first byte | ≤ 5 | 0.30 | 0.30..0.30 | met |",
		"| leave | ms until the replica knows, in a silent stream | ≤ 5 | never | never..never | not met |",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the report lacks %q:\n%s", want, got)
		}
	}
}

func TestPictureIsXML(t *testing.T) {
	r := sampled(t)
	d := xml.NewDecoder(strings.NewReader(r.picture()))
	rects := 0
	for {
		tok, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "rect" {
			rects++
		}
	}
	if rects != 3 {
		t.Errorf("%d bars; want one of each proxy measured in post, one in leave", rects)
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0.1234: "0.12", 12.34: "12.3", 1234.5: "1234", 5: "5", 0: "0", math.Inf(1): "never"} {
		if got := number(v); got != want {
			t.Errorf("%v: %q; want %q", v, got, want)
		}
	}
}

// Every bar is about a cell and a figure there are; metricOf panics otherwise.
func TestBarsNameCells(t *testing.T) {
	r := &report{Peers: []party{{"lbd", true}}}
	for _, c := range cells {
		r.Cells = append(r.Cells, measured{cell: c, Rounds: 1})
		r.Samples = append(r.Samples, sample{Cell: c.Name, Peer: "lbd", Round: 1})
	}
	if got := len(r.verdicts("lbd")); got != len(bars) {
		t.Errorf("%d verdicts for %d bars", got, len(bars))
	}
}

func TestWithin(t *testing.T) {
	c := named(t, "sse10k")
	if got := c.within(65536); got.Conns != 10_000 || got.What != c.What {
		t.Errorf("with files enough: %d, %q", got.Conns, got.What)
	}
	if got := c.within(20_000); got.Conns != 9800 || !strings.Contains(got.What, "9800 of them") {
		t.Errorf("with 20,000 files: %d, %q", got.Conns, got.What)
	}
}

// What two cores cost is told beside what they cost nginx.
func TestBarsAgainstARivalsRatio(t *testing.T) {
	r := &report{Peers: []party{{"lbd", true}, {"nginx", false}}}
	for _, c := range []string{"post1c", "post2c"} {
		r.Cells = append(r.Cells, measured{cell: named(t, c), Rounds: 1})
	}
	for peer, cpu := range map[string][2]int64{"lbd": {20_000, 24_000}, "nginx": {10_000, 11_000}} {
		r.Samples = append(r.Samples,
			sample{Cell: "post1c", Peer: peer, Round: 1, Outcome: &outcome{Answers: 1, CPU: cpu[0]}},
			sample{Cell: "post2c", Peer: peer, Round: 1, Outcome: &outcome{Answers: 1, CPU: cpu[1]}})
	}
	var got []string
	for _, v := range r.verdicts("lbd") {
		if v.cell == "post2c" {
			got = append(got, fmt.Sprintf("%s %.3f %v", v.rival, v.value, v))
		}
	}
	if want := []string{" 1.200 not met", "nginx 1.091 met"}; !slices.Equal(got, want) {
		t.Errorf("%q; want %q", got, want)
	}
}

// Cells that a bar compares share their rounds, others do not.
func TestTogether(t *testing.T) {
	var got []string
	for group, rest := []cell(nil), cells; len(rest) > 0; {
		group, rest = together(rest)
		var names []string
		for _, c := range group {
			names = append(names, c.Name)
		}
		if len(names) > 1 {
			got = append(got, strings.Join(names, " "))
		}
	}
	slices.Sort(got)
	if want := []string{"post1c post2c", "sse256 sse2c"}; !slices.Equal(got, want) {
		t.Errorf("%q; want %q", got, want)
	}
}

// A bar whose other cell was not run is told of as one that nobody knows.
func TestBarWithoutItsBase(t *testing.T) {
	r := &report{Peers: []party{{"lbd", true}, {"nginx", false}}, Cells: []measured{{cell: named(t, "post2c"), Rounds: 1}}}
	for _, peer := range []string{"lbd", "nginx"} {
		r.Samples = append(r.Samples, sample{Cell: "post2c", Peer: peer, Round: 1, Outcome: &outcome{Answers: 1, CPU: 1}})
	}
	var got []string
	for _, v := range r.verdicts("lbd") {
		got = append(got, v.String())
	}
	if want := []string{"not measured", "not measured"}; !slices.Equal(got, want) {
		t.Errorf("%q; want %q", got, want)
	}
}
