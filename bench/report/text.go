package report

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"lbd/bench/report/page"
)

// WriteText writes verdict and tables for a terminal.
func (c *Comparison) WriteText(w io.Writer) error {
	var b strings.Builder
	for _, note := range c.notes {
		fmt.Fprintf(&b, "%s\n", note)
	}
	fmt.Fprintf(&b, "%s\n", c.Verdict.Headline)
	for _, p := range c.Verdict.Points {
		mark := " "
		switch p.Tone {
		case page.Good:
			mark = "+"
		case page.Bad, page.Failed:
			mark = "-"
		case page.Unclear:
			mark = "?"
		}
		fmt.Fprintf(&b, "  %s %s\n", mark, p.Text)
	}
	for i := range c.Cells {
		for _, s := range c.Cells[i].Scopes {
			c.writeScope(&b, &c.Cells[i], s)
		}
	}
	for _, note := range c.Notes {
		fmt.Fprintf(&b, "\nnote: %s", note)
	}
	if len(c.Notes) > 0 {
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (c *Comparison) writeScope(b *strings.Builder, cell *Cell, s Scope) {
	fmt.Fprintf(b, "\n%s", scopeTitle(cell, s))
	for e, name := range c.Environments {
		fmt.Fprintf(b, "; %s of %s", repeats(len(cell.Repeats[e])), name)
	}
	b.WriteString("\n")
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "\t%s\t", strings.Join(c.Environments, "\t"))
	for _, name := range c.Environments[1:] {
		fmt.Fprintf(t, "%s\t95 %% interval\t\t", name)
	}
	fmt.Fprintln(t)
	for _, f := range s.Figures {
		fmt.Fprintf(t, "%s %s\t", f.Name, f.Unit)
		for _, m := range f.Means {
			fmt.Fprintf(t, "%s\t", page.Number(m))
		}
		for e := 1; e < len(f.Means); e++ {
			d := f.Differences[e]
			fmt.Fprintf(t, "%s\t%s\t%s\t", signed(d.Mid), f.interval(d), f.words(e))
		}
		fmt.Fprintln(t)
	}
	t.Flush()
}

func scopeTitle(cell *Cell, s Scope) string {
	title := "all requests"
	if s.Model != "" {
		title = s.Model
	}
	if cell.Name != "" {
		title = cell.Name + ": " + title
	}
	return title
}

func signed(percent float64) string {
	text := page.Number(percent)
	if percent > -9.95 && percent < 9.95 {
		text = strings.Replace(fmt.Sprintf("%.1f", percent), "-", "−", 1)
	}
	if percent > 0 {
		text = "+" + text
	}
	return text + " %"
}

func (f *Figure) interval(d Interval) string {
	if d.Low != d.Low { // NaN
		return "–"
	}
	return signed(d.Low) + " to " + signed(d.High)
}

// words is the outcome, for figures that an environment can be judged by.
func (f *Figure) words(e int) string {
	if f.Given {
		return "as sent"
	}
	return string(f.Outcomes[e])
}
