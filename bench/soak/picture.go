//go:build linux

package main

import (
	"fmt"
	"math"
	"strings"
)

// Sizes of the picture, in pixels.
const (
	pictureWidth = 760
	panelHeight  = 110
	panelGap     = 46
	left         = 56
)

// pictureStyle follows the reader's colours: GitHub and browsers tell an SVG in an
// img whether the page is light or dark.
const pictureStyle = `<style>
text{font:12px system-ui,sans-serif;fill:#24292f}.t{font-weight:600}.l{text-anchor:end}
.a{stroke:#0969da}.b{stroke:#bc4c00}.ka{fill:#0969da}.kb{fill:#bc4c00}polyline{fill:none;stroke-width:1.5}.g{stroke:#8c959f;stroke-width:.5}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.a{stroke:#4493f8}.b{stroke:#f0883e}.ka{fill:#4493f8}.kb{fill:#f0883e}.g{stroke:#656c76}}
</style>
`

// curve is one line of a panel.
type curve struct {
	name  string
	value func(before, s sample) float64
}

// panels of the picture, from top to bottom.
var panels = [][]curve{
	{{"RSS, MiB", func(_, s sample) float64 { return mib(s.RSS) }}, {"heap in use, MiB", func(_, s sample) float64 { return mib(s.Heap) }}},
	{{"goroutines", func(_, s sample) float64 { return float64(s.Goroutines) }}, {"open descriptors", func(_, s sample) float64 { return float64(s.Descriptors) }}},
	{{"requests in flight (own load)", func(_, s sample) float64 { return float64(s.OwnLoad) }}},
	{{"requests/s", rate(func(s sample) int64 { return s.Requests })}, {"errors/s", rate(func(s sample) int64 { return s.Errors })}},
}

// rate is how much a counter grew in a second.
func rate(of func(sample) int64) func(before, s sample) float64 {
	return func(before, s sample) float64 {
		if s.At <= before.At {
			return 0
		}
		return float64(of(s)-of(before)) / (s.At - before.At)
	}
}

// picture draws what was sampled over time.
func (r *report) picture() string {
	var b strings.Builder
	y := 8
	for _, p := range panels {
		r.panel(&b, p, y)
		y += panelHeight + panelGap
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img">
<title>lbd under churn: memory, goroutines, descriptors, requests and errors over time</title>
%s%s</svg>
`, pictureWidth, y, pictureWidth, y, pictureStyle, b.String())
}

func (r *report) panel(b *strings.Builder, curves []curve, y int) {
	most, long := 1.0, 1.0
	lines := make([][]float64, len(curves))
	for i, c := range curves {
		before := sample{}
		for _, s := range r.Samples {
			v := c.value(before, s)
			before, most, long = s, math.Max(most, v), math.Max(long, s.At)
			lines[i] = append(lines[i], v)
		}
	}
	most = ceiling(most)
	x := left
	for i, c := range curves {
		_, _ = fmt.Fprintf(b, `<text class="t k%c" x="%d" y="%d">%s</text>`, 'a'+i, x, y+12, c.name)
		x += 9*len(c.name) + 16
	}
	top := y + 20
	bottom := top + panelHeight
	for _, share := range []float64{0, 0.5, 1} {
		at := float64(bottom) - share*panelHeight
		_, _ = fmt.Fprintf(b, `<line class="g" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/><text class="l" x="%d" y="%.1f">%g</text>`+"\n",
			left, pictureWidth-8, at, at, left-6, at+4, share*most)
	}
	_, _ = fmt.Fprintf(b, `<text class="l" x="%d" y="%d">%.0f s</text>`+"\n", pictureWidth-8, bottom+15, long)
	for i, values := range lines {
		_, _ = fmt.Fprintf(b, `<polyline class="%c" points="`, 'a'+i)
		for k, v := range values {
			_, _ = fmt.Fprintf(b, "%.1f,%.1f ", left+r.Samples[k].At/long*(pictureWidth-8-left), float64(bottom)-v/most*panelHeight)
		}
		b.WriteString(`"/>` + "\n")
	}
}

// ceiling is the next of 1, 2, 5, 10, 20, ... above a value.
func ceiling(v float64) float64 {
	unit := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5} {
		if v <= m*unit {
			return m * unit
		}
	}
	return 10 * unit
}
