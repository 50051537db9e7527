//go:build linux

package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Sizes of the picture, in pixels.
const (
	pictureWidth = 760
	labelWidth   = 120
	barHeight    = 16
	barGap       = 5
	panelGap     = 44
)

// pictureStyle follows the reader's colours: GitHub and browsers tell an SVG in
// an img whether the page is light or dark.
const pictureStyle = `<style>
text{font:12px system-ui,sans-serif;fill:#24292f}
.t{font-weight:600}.l{text-anchor:end}.o{fill:#57606a}
.own{fill:#0969da}.peer{fill:#8c959f}.spread{stroke:#24292f;stroke-width:1}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.o{fill:#9198a1}.own{fill:#4493f8}.peer{fill:#656c76}.spread{stroke:#e6edf3}}
</style>
`

// picture draws a panel of bars for each cell: its first figure, shorter is
// better, with the spread of the rounds as a line.
func (r *report) picture() string {
	var b strings.Builder
	y := 8
	for _, c := range r.Cells {
		y = r.panel(&b, c, y)
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img">
<title>What a proxy costs, per cell; shorter is better</title>
%s%s</svg>
`, pictureWidth, y, pictureWidth, y, pictureStyle, b.String())
}

// panel draws one cell and returns where the next begins.
func (r *report) panel(b *strings.Builder, c measured, y int) int {
	m := metricsOf(c.cell)[0]
	type bar struct {
		peer             string
		own              bool
		value, low, high float64
	}
	var bars []bar
	most := 0.0
	for _, p := range r.Peers {
		v := r.values(c, p.Name, m)
		mid := median(v)
		if math.IsNaN(mid) {
			continue
		}
		low, high := spread(v)
		bars = append(bars, bar{p.Name, p.LBD, mid, low, high})
		if !math.IsInf(high, 0) {
			most = max(most, high)
		}
	}
	if len(bars) == 0 || most == 0 {
		return y
	}
	_, _ = fmt.Fprintf(b, `<text class="t" x="8" y="%d">%s</text><text class="o" x="8" y="%d">%s, shorter is better</text>`+"\n",
		y+12, html.EscapeString(c.Name+": "+c.What), y+28, html.EscapeString(m.name))
	y += 38
	scale := func(v float64) float64 { return v / most * (pictureWidth - labelWidth - 80) }
	for _, p := range bars {
		class := "peer"
		if p.own {
			class = "own"
		}
		_, _ = fmt.Fprintf(b, `<text class="l" x="%d" y="%d">%s</text>`, labelWidth-8, y+12, html.EscapeString(p.peer))
		end := 0.0
		if !math.IsInf(p.value, 0) {
			end = scale(p.value)
			_, _ = fmt.Fprintf(b, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d" rx="2"/>`, class, labelWidth, y, end, barHeight)
		}
		if !math.IsInf(p.high, 0) && p.high > p.low {
			_, _ = fmt.Fprintf(b, `<line class="spread" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/>`, labelWidth+scale(p.low), labelWidth+scale(p.high), y+barHeight/2, y+barHeight/2)
			end = max(end, scale(p.high))
		}
		_, _ = fmt.Fprintf(b, `<text x="%.1f" y="%d">%s</text>`+"\n", labelWidth+end+6, y+12, number(p.value))
		y += barHeight + barGap
	}
	return y + panelGap - 24
}
