package page

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func sample() Page {
	return Page{
		Title: `a "quoted" <title>`, Lead: "lead", Warnings: []string{"simulated"},
		Verdict: Verdict{Good, "b did better", []Point{{Good, "TTFT p50"}, {Unclear, "E2E p99"}}},
		Sections: []Section{{Title: "Latency", Charts: []Chart{
			{
				Title: "TTFT", Description: "Lower is better.", X: Axis{Label: "percentile", Scale: Percentile}, Y: Axis{Label: "time", Unit: "ms", Scale: Log},
				Series: []Series{
					{Name: "a", Points: []XY{{X: 50, Y: 10}, {X: 99, Y: 400}}},
					{Name: "b", Colour: 1, Dash: 1, Points: []XY{{X: 50, Y: 8}, {X: 99, Y: 0}}},
				},
			},
			{
				Title: "load", X: Axis{Label: "time", Unit: "s"}, Y: Axis{Label: "requests"},
				Series: []Series{{Name: `</script><b>`, Points: []XY{{X: 0, Y: 1}, {X: 1, Y: 3, Low: 2, High: 4}, {X: 2, Y: math.NaN()}}, Steps: true, Marks: true}},
			},
			{Title: "nothing"},
		}, Tables: []Table{{
			Title: "Figures", Columns: []Column{{Name: ""}, {Name: "a", Number: true}, {Name: "interval"}},
			Rows: []Row{{Cells: []Cell{{Text: "TTFT"}, {Text: "12"}, {Text: "−5 % to −1 %", Tone: Good, Interval: &Interval{-5, -3, math.Inf(1)}}}}},
		}}}},
		Notes: []string{"note"},
	}
}

func html(t *testing.T, p Page) string {
	t.Helper()
	var b bytes.Buffer
	if err := p.WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// The page needs nothing but itself.
func TestNothingIsLoaded(t *testing.T) {
	text := html(t, sample())
	for _, pattern := range []string{`https?://`, `\bsrc=`, `@import`, `url\(`} {
		if found := regexp.MustCompile(pattern).FindString(text); found != "" {
			t.Errorf("the page has %q: it must not load anything", found)
		}
	}
	if links := regexp.MustCompile(`<link[^>]*>`).FindAllString(text, -1); len(links) != 1 || !strings.Contains(links[0], `href="data:,"`) {
		t.Errorf("links %q; want the empty icon only", links)
	}
}

// Names come from result files: none may end what it stands in.
func TestTextIsEscaped(t *testing.T) {
	text := html(t, sample())
	if strings.Contains(text, "</script><b>") || strings.Contains(text, "<title>a \"quoted\" <title>") || strings.Count(text, "</script>") != 1 {
		t.Error("a name is not escaped")
	}
}

// Every chart is named, is there as a table too, and its tags are balanced.
func TestChartsAreAccessible(t *testing.T) {
	text := html(t, sample())
	charts := len(sample().Sections[0].Charts)
	for part, want := range map[string]int{
		`role="img" aria-label="`: charts, "<figcaption>": charts, "<summary>The same as a table</summary>": charts,
	} {
		if got := strings.Count(text, part); got != want {
			t.Errorf("%d times %s; want %d", got, part, want)
		}
	}
	for _, figure := range regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(text, -1) {
		for dec := xml.NewDecoder(strings.NewReader(figure)); ; {
			if _, err := dec.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%v in %s", err, figure)
			}
		}
	}
	if strings.Contains(text, "NaN") || strings.Contains(text, "Inf") {
		t.Error("a drawing has a number that is none")
	}
}

func TestEqualPagesGiveEqualBytes(t *testing.T) {
	first := html(t, sample())
	if second := html(t, sample()); first != second {
		t.Error("the same page twice differs")
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 1: "1.00", 9.99: "9.99", 9.996: "10.0", 12.34: "12.3", 99.94: "99.9", 99.96: "100", 1234: "1,234", 1234567: "1,234,567",
		-1234: "−1,234", .1234: "0.123", .001234: "0.00123", math.Inf(1): "–",
	} {
		if got := Number(v); got != want {
			t.Errorf("Number(%v) = %q; want %q", v, got, want)
		}
	}
	if got := Number(math.NaN()); got != "–" {
		t.Errorf("Number(NaN) = %q", got)
	}
}

func labels(s scale) []string {
	var all []string
	for _, t := range s.ticks() {
		all = append(all, t.Label)
	}
	return all
}

func TestTicks(t *testing.T) {
	for _, c := range []struct {
		axis   Axis
		values []float64
		want   []string
	}{
		{Axis{}, []float64{0, 13.1}, []string{"0", "5", "10", "15"}},
		{Axis{}, []float64{3, 55}, []string{"0", "10", "20", "30", "40", "50", "60"}},
		{Axis{}, []float64{.2}, []string{"0.00", "0.05", "0.10", "0.15", "0.20"}},
		{Axis{}, nil, []string{"0.0", "0.2", "0.4", "0.6", "0.8", "1.0"}},
		{Axis{To: 40}, []float64{3}, []string{"0", "10", "20", "30", "40"}},
		{Axis{Scale: Log}, []float64{30, 1700}, []string{"20", "50", "100", "200", "500", "1,000", "2,000"}},
		{Axis{Scale: Log}, []float64{.3, 9000, 0, -1, 5e-324}, []string{"1", "10", "100", "1,000", "10,000"}},
		{Axis{Scale: Percentile}, []float64{1}, []string{"min", "p50", "p75", "p90", "p95", "p99", "p99.9"}},
	} {
		s := newScale(c.axis, c.values)
		if diff := cmp.Diff(c.want, labels(s)); diff != "" {
			t.Errorf("%v over %v: %s", c.axis, c.values, diff)
		}
		for _, k := range s.ticks() {
			if k.At < -1e-9 || k.At > 1+1e-9 {
				t.Errorf("%v over %v: tick %s at %v", c.axis, c.values, k.Label, k.At)
			}
		}
	}
}
