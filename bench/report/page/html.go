package page

import (
	"cmp"
	_ "embed" // the template and what goes into it
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"
)

var (
	//go:embed page.html
	layout string
	//go:embed style.css
	style string
	//go:embed hover.js
	hover string
)

var pageTemplate = template.Must(template.New("page").Funcs(template.FuncMap{
	"style":  func() template.CSS { return template.CSS(style) },
	"hover":  func() template.JS { return template.JS(hover) },
	"plot":   Chart.plot,
	"whisk":  whiskers,
	"reach":  Table.reach,
	"anchor": anchor,
	"json":   encode,
}).Parse(layout))

// WriteHTML writes the page as one file.
func (p Page) WriteHTML(w io.Writer) error {
	if err := pageTemplate.Execute(w, p); err != nil {
		return fmt.Errorf("cannot write the page: %w", err)
	}
	return nil
}

func encode(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}

// anchor is a heading as the target of a link.
func anchor(title string) string {
	return strings.Trim(strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, title), "-")
}

// reach is half the scale of a table's intervals.
func (t Table) reach() float64 {
	reach := 0.0
	for _, r := range t.Rows {
		for _, c := range r.Cells {
			if c.Interval != nil {
				reach = max(reach, finite(c.Interval.Low), finite(c.Interval.Mid), finite(c.Interval.High))
			}
		}
	}
	// One interval without bounds must not press the others to a point.
	return cmp.Or(min(reach, maxReach), 1)
}

// maxReach is the largest difference drawn to scale, in percent; what is beyond
// ends at the edge. The words beside it have the value.
const maxReach = 100

func finite(v float64) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	return math.Abs(v)
}

// whisker is an interval in percent of the cell's width.
type whisker struct{ Low, Mid, High string }

func whiskers(i *Interval, reach float64) whisker {
	at := func(v float64) string {
		if math.IsNaN(v) {
			v = 0
		}
		return decimal(min(100, max(0, 50+48*v/reach)))
	}
	return whisker{at(i.Low), at(i.Mid), at(i.High)}
}
