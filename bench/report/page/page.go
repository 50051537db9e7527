package page

// Page is what a reader sees, from top to bottom.
type Page struct {
	Title string
	// Lead says in a sentence or two what was measured.
	Lead string
	// Warnings are what must be known before any figure is read.
	Warnings []string
	Verdict  Verdict
	Sections []Section
	// Notes say how the figures were made; they end the page.
	Notes []string
}

// Tone is what a statement means to the reader.
type Tone string

// The tones. Each is shown by a colour and a word or sign.
const (
	Neutral Tone = ""
	Good    Tone = "good"
	Bad     Tone = "bad"
	Mixed   Tone = "mixed"
	Unclear Tone = "unclear" // the evidence does not suffice
	Failed  Tone = "failed"  // the measurement is not to be trusted
)

// Word names the tone where colour is not seen.
func (t Tone) Word() string {
	switch t {
	case Good:
		return "better"
	case Bad:
		return "worse"
	case Mixed:
		return "mixed"
	case Unclear:
		return "not shown"
	case Failed:
		return "not to be trusted"
	}
	return ""
}

// Verdict is the answer, in words.
type Verdict struct {
	Tone     Tone
	Headline string
	Points   []Point
}

// Point is one sentence of a verdict.
type Point struct {
	Tone Tone
	Text string
}

// Section is a part of the page with a heading of its own.
type Section struct {
	Title  string
	Lead   string
	Charts []Chart
	Tables []Table
}

// Table is rows of text and intervals. The first column heads its row.
type Table struct {
	Title   string
	Columns []Column
	Rows    []Row
	Note    string
}

// Column is the head of a column; Number columns are set to the right.
type Column struct {
	Name   string
	Number bool
}

// Row is one row of a table. A row with Break begins a group of rows.
type Row struct {
	Cells []Cell
	Break bool
}

// Cell is the text of a table's cell, and an interval drawn beside it if there
// is one. Intervals of one table share their scale.
type Cell struct {
	Text     string
	Tone     Tone
	Interval *Interval
}

// Interval is an estimate and the range it may lie in. The scale has 0 in its
// middle.
type Interval struct{ Low, Mid, High float64 }

// Chart is series over two axes.
type Chart struct {
	Title string
	// Description says what is seen, for those who do not see it.
	Description string
	X, Y        Axis
	Series      []Series
}

// Scale is how values are spread along an axis.
type Scale int

// The scales.
const (
	Linear     Scale = iota // from 0, or from Axis.Floor
	Log                     // by powers of ten; values of 0 and below are left out
	Percentile              // 0 to 100, the tail spread out: each further nine takes as much room
)

// Axis names what is measured along it.
type Axis struct {
	Label string
	Unit  string
	Scale Scale
	// Fit begins a linear axis at the smallest value, not at 0.
	Fit bool
	// To makes an axis reach at least so far, so that charts beside each other can
	// share their scale.
	To float64
}

// Series is one line of a chart.
type Series struct {
	Name string
	// Colour is the number of the party the series belongs to, from 0; series of
	// one party have its colour and differ by their dash.
	Colour int
	Dash   int
	Points []XY
	// Marks draws each point; Steps keeps a value until the next point.
	Marks, Steps bool
	// Faint is for single repeats behind a mean.
	Faint bool
}

// XY is a point of a series. Low and High, when they differ, are drawn as a bar.
type XY struct{ X, Y, Low, High float64 }
