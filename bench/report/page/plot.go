package page

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

// plotSize is the side of the drawing's own square; the browser stretches it to
// the room there is, strokes excepted.
const plotSize = 1000

// plot is a chart laid out.
type plot struct {
	Chart
	XTicks, YTicks []mark
	Lines          []line
	Rows           [][]string // the table below
	Data           []readout
}

// mark is a tick with its place in percent.
type mark struct{ Place, Label string }

// line is a series laid out.
type line struct {
	Name, Class string
	Path        string // the line
	Dots        string // points that are marked
	Bars        string // ranges of points
}

// readout is a series as the hover script wants it: places in the drawing, and
// words.
type readout struct {
	Name   string    `json:"n"`
	Colour int       `json:"c"`
	X      []float64 `json:"x"`
	Words  []string  `json:"w"`
}

func (c Chart) plot() plot {
	var xs, ys []float64
	for _, s := range c.Series {
		for _, p := range s.Points {
			xs = append(xs, p.X)
			ys = append(ys, p.Y)
			if p.Low != p.High {
				ys = append(ys, p.Low, p.High)
			}
		}
	}
	x, y := newScale(c.X, xs), newScale(c.Y, ys)
	p := plot{Chart: c, XTicks: places(x.ticks(), false), YTicks: places(y.ticks(), true), Rows: c.rows()}
	for _, s := range c.Series {
		p.Lines = append(p.Lines, s.line(x, y))
		p.Data = append(p.Data, s.readout(x, c))
	}
	return p
}

func places(ticks []tick, fromTop bool) []mark {
	marks := make([]mark, 0, len(ticks))
	for _, t := range ticks {
		at := t.At
		if fromTop {
			at = 1 - at
		}
		marks = append(marks, mark{decimal(100 * at), t.Label})
	}
	return marks
}

func decimal(v float64) string { return strconv.FormatFloat(math.Round(100*v)/100, 'f', -1, 64) }

func (s Series) line(x, y scale) line {
	var path, dots, bars strings.Builder
	pen := "M"
	last := ""
	for _, p := range s.Points {
		if !x.shows(p.X) || !y.shows(p.Y) {
			pen = "M"
			continue
		}
		px, py := decimal(plotSize*x.at(p.X)), decimal(plotSize*(1-y.at(p.Y)))
		if s.Steps && pen == "L" {
			path.WriteString("L" + px + " " + last)
		}
		path.WriteString(pen + px + " " + py)
		pen, last = "L", py
		if s.Marks {
			dots.WriteString("M" + px + " " + py + "h0")
		}
		if p.Low != p.High && y.shows(p.Low) && y.shows(p.High) {
			bars.WriteString("M" + px + " " + decimal(plotSize*(1-y.at(p.Low))) + "V" + decimal(plotSize*(1-y.at(p.High))))
		}
	}
	class := "c" + strconv.Itoa(s.Colour%colours) + " d" + strconv.Itoa(s.Dash%dashes)
	if s.Faint {
		class += " faint"
	}
	return line{s.Name, class, path.String(), dots.String(), bars.String()}
}

// The style sheet has so many colours and dashes.
const colours, dashes = 6, 4

func (s Series) readout(x scale, c Chart) readout {
	r := readout{Name: s.Name, Colour: s.Colour % colours}
	for _, p := range s.Points {
		if x.shows(p.X) && !math.IsNaN(p.Y) {
			r.X = append(r.X, math.Round(1e4*x.at(p.X))/1e4)
			r.Words = append(r.Words, c.words(p))
		}
	}
	return r
}

func (c Chart) words(p XY) string {
	text := c.X.value(p.X) + ": " + c.Y.value(p.Y)
	if p.Low != p.High {
		text += " (" + Number(p.Low) + " to " + Number(p.High) + ")"
	}
	return text
}

func (a Axis) value(v float64) string {
	if a.Scale == Percentile {
		return "p" + strconv.FormatFloat(v, 'f', -1, 64)
	}
	if a.Unit == "" {
		return Number(v)
	}
	return Number(v) + " " + a.Unit
}

// maxRows bounds the table below a chart.
const maxRows = 24

// rows is the chart as a table: a head, then a row for each place on the x axis.
func (c Chart) rows() [][]string {
	xs := c.tableXs()
	head := []string{c.X.Label}
	for _, s := range c.Series {
		head = append(head, s.Name)
	}
	rows := [][]string{head}
	for _, x := range xs {
		row := []string{c.X.value(x)}
		for _, s := range c.Series {
			row = append(row, s.cell(x))
		}
		rows = append(rows, row)
	}
	return rows
}

func (c Chart) tableXs() []float64 {
	if c.X.Scale == Percentile {
		return tickPercentiles[1:]
	}
	var xs []float64
	for _, s := range c.Series {
		for _, p := range s.Points {
			xs = append(xs, p.X)
		}
	}
	slices.Sort(xs)
	xs = slices.Compact(xs)
	if len(xs) <= maxRows {
		return xs
	}
	thin := make([]float64, 0, maxRows)
	for i := range maxRows {
		thin = append(thin, xs[i*(len(xs)-1)/(maxRows-1)])
	}
	return thin
}

// cell is the series' value at x, or that of the last point before it where the
// series is steps.
func (s Series) cell(x float64) string {
	text := "–"
	for _, p := range s.Points {
		switch {
		case p.X == x:
			return s.withRange(p)
		case p.X < x && s.Steps:
			text = s.withRange(p)
		}
	}
	return text
}

func (s Series) withRange(p XY) string {
	if p.Low == p.High {
		return Number(p.Y)
	}
	return Number(p.Y) + " (" + Number(p.Low) + " to " + Number(p.High) + ")"
}
