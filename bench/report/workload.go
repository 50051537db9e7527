package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"lbd/bench/report/page"
)

// Workload is what was asked of an environment. Figures are compared only between
// equal ones.
type Workload struct {
	Load Load
	// Fields must be equal, word for word; in alphabetical order.
	Fields []Field
	// Measured are equal within what chance explains; they are there for files that
	// do not say what was asked for.
	Measured []Measured
}

// Load is the one thing that is varied on purpose.
type Load struct {
	Kind  string // "concurrency", "rate" or "" when unknown
	Value float64
}

func (l Load) String() string {
	switch l.Kind {
	case "concurrency":
		return "concurrency " + page.Number(l.Value)
	case "rate":
		return page.Number(l.Value) + " requests/s"
	}
	return ""
}

// Field is one property of a workload.
type Field struct{ Name, Value string }

// Measured is a property known from the requests alone, with the error of chance.
type Measured struct {
	Name         string
	Value, Error float64
}

// fields drops empty values and sorts.
func fields(of map[string]string) []Field {
	var all []Field
	for name, value := range of {
		if value != "" {
			all = append(all, Field{name, value})
		}
	}
	slices.SortFunc(all, func(a, b Field) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// measuredTolerance is how far measured properties may be apart where the error of
// chance is smaller: tokenizers and clocks differ by so much.
const measuredTolerance = .02

func (m Measured) fits(o Measured) bool {
	apart := math.Abs(m.Value - o.Value)
	return apart <= 3*math.Hypot(m.Error, o.Error) || apart <= measuredTolerance*max(math.Abs(m.Value), math.Abs(o.Value))
}

// sent is what is known of a set of requests from itself.
func sent(requests []Request, openLoop bool) []Measured {
	var prompts, outputs []float64
	last := 0.0
	for i := range requests {
		r := &requests[i]
		last = max(last, r.Sent)
		if !r.Failed {
			prompts, outputs = append(prompts, float64(r.Prompt)), append(outputs, float64(r.Output))
		}
	}
	all := []Measured{measured("prompt tokens per request", prompts), measured("output tokens per request", outputs)}
	if n := float64(len(requests)); openLoop && last > 0 {
		all = append(all, Measured{"requests per second", n / last, math.Sqrt(n) / last})
	}
	return all
}

func measured(name string, vs []float64) Measured {
	if len(vs) == 0 {
		return Measured{Name: name}
	}
	return Measured{name, mean(vs), deviation(vs) / math.Sqrt(float64(len(vs)))}
}

// Difference is one property in which two workloads differ.
type Difference struct{ Name, A, B string }

// Differences are the properties in which two workloads differ; none when their
// figures can be compared.
func Differences(a, b Workload) []Difference {
	var all []Difference
	named := map[string][2]string{}
	for side, w := range []Workload{a, b} {
		for _, f := range w.Fields {
			pair := named[f.Name]
			pair[side] = f.Value
			named[f.Name] = pair
		}
	}
	for name, pair := range named {
		if pair[0] != pair[1] {
			all = append(all, Difference{name, cmp.Or(pair[0], "not said"), cmp.Or(pair[1], "not said")})
		}
	}
	for _, m := range a.Measured {
		i := slices.IndexFunc(b.Measured, func(o Measured) bool { return o.Name == m.Name })
		if i >= 0 && !m.fits(b.Measured[i]) {
			all = append(all, Difference{m.Name, page.Number(m.Value), page.Number(b.Measured[i].Value)})
		}
	}
	slices.SortFunc(all, func(a, b Difference) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// WorkloadError says why environments cannot be compared.
type WorkloadError struct {
	A, B string // environments
	// Where names the workload of A that B lacks.
	Where string
	// Differences are those to the most similar workload of B; none when it has no
	// run at all.
	Differences []Difference
}

func (e *WorkloadError) Error() string {
	where := ""
	if e.Where != "" {
		where = " at " + e.Where
	}
	if len(e.Differences) == 0 {
		return fmt.Sprintf("%s has no run to set against that of %s%s", e.B, e.A, where)
	}
	lines := []string{fmt.Sprintf("the workloads differ%s; their figures cannot be compared:", where)}
	for _, d := range e.Differences {
		lines = append(lines, fmt.Sprintf("  %s: %s in %s, %s in %s", d.Name, d.A, e.A, d.B, e.B))
	}
	return strings.Join(lines, "\n")
}
