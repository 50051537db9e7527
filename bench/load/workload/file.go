package workload

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"lbd/bench/trace"
)

// Read reads a file. Its errors name file, line and key, all that are found.
func Read(path string) (*Workload, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read workload: %w", err)
	}
	w, err := Parse(text)
	if err != nil {
		lines := strings.Split(err.Error(), "\n")
		for i := range lines {
			lines[i] = path + ":" + lines[i]
		}
		return nil, errors.New(strings.Join(lines, "\n"))
	}
	return w, nil
}

// Parse reads the text of a file. What only a whole workload must have, a load and
// an end, may be missing: flags can add it. See [Workload.Validate].
func Parse(text []byte) (*Workload, error) {
	root, err := parseTree(text)
	if err != nil {
		return nil, err
	}
	r := &reader{}
	w := r.workload(root)
	if err := errors.Join(r.errs...); err != nil {
		return nil, err
	}
	return w, nil
}

// reader turns nodes into values and collects what is wrong with them.
type reader struct{ errs []error }

func (r *reader) fail(line int, path, format string, args ...any) {
	if path != "" {
		format = "%s: " + format
		args = append([]any{path}, args...)
	}
	r.errs = append(r.errs, fmt.Errorf("%d: "+format, append([]any{line}, args...)...))
}

// keys says what reads the value of each key.
type keys map[string]func(n *node, path string)

// object reads an object of the known keys; required ones have to be there.
func (r *reader) object(n *node, path string, known keys, required ...string) {
	if !n.isMap {
		r.fail(n.line, path, "%v; want an object", n)
		return
	}
	seen := map[string]bool{}
	for _, f := range n.fields {
		at := join(path, f.name)
		read := known[f.name]
		switch {
		case read == nil:
			r.fail(f.line, path, "unknown key %q; want %s", f.name, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		case seen[f.name]:
			r.fail(f.line, at, "stands twice")
		default:
			read(f.value, at)
		}
		seen[f.name] = true
	}
	for _, name := range required {
		if !seen[name] {
			r.fail(n.line, path, "no %q", name)
		}
	}
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func (r *reader) workload(root *node) *Workload {
	w := &Workload{}
	r.object(root, "", keys{
		"schema": func(n *node, path string) {
			if n.value != Schema {
				r.fail(n.line, path, "%v; want %q", n, Schema)
			}
		},
		"name":        r.text(&w.Name),
		"description": r.text(&w.Description),
		"arrival":     func(n *node, path string) { r.arrival(n, path, &w.Arrival) },
		"requests":    r.whole(&w.Requests, 1),
		"duration":    r.span(&w.Duration),
		"warmup":      r.span(&w.Warmup),
		"slo": func(n *node, path string) {
			limits := &w.SLO
			r.object(n, path, keys{"ttft": r.span(&limits.TTFT), "tpot": r.span(&limits.TPOT), "e2e": r.span(&limits.E2E)})
		},
		"classes": func(n *node, path string) { r.classes(n, path, w) },
	}, "schema", "name", "classes")
	return w
}

func (r *reader) arrival(n *node, path string, a *Arrival) {
	before := len(r.errs)
	r.object(n, path, keys{
		"process":     r.text(&a.Process),
		"burstiness":  r.number(&a.Burstiness),
		"rate":        r.number(&a.Rate),
		"concurrency": r.whole(&a.Concurrency, 1),
		"ramp": func(n *node, path string) {
			r.object(n, path, keys{"over": r.span(&a.RampOver), "from": r.number(&a.RampFrom), "shape": r.text(&a.RampShape)}, "over")
		},
	})
	if len(r.errs) > before {
		return
	}
	if a.Rate != 0 && a.Concurrency != 0 {
		r.fail(n.line, path, "a rate and a concurrency; want one of both")
	}
	if err := a.validate(); err != nil {
		r.fail(n.line, path, "%w", err)
	}
}

func (r *reader) classes(n *node, path string, w *Workload) {
	if !n.isList || len(n.items) == 0 {
		r.fail(n.line, path, "%v; want a list of at least one class", n)
		return
	}
	names := map[string]bool{}
	for i, item := range n.items {
		c := r.class(item, fmt.Sprintf("%s[%d]", path, i))
		if names[c.Name] && c.Name != "" {
			r.fail(item.line, fmt.Sprintf("%s[%d].name", path, i), "%q again; want another name", c.Name)
		}
		names[c.Name] = true
		w.Classes = append(w.Classes, c)
	}
}

func (r *reader) class(n *node, path string) Class {
	c := NewClass("")
	before := len(r.errs)
	r.object(n, path, keys{
		"name":               r.text(&c.Name),
		"weight":             r.number(&c.Weight),
		"models":             func(n *node, path string) { c.Models = r.models(n, path) },
		"input_tokens":       r.lengths(&c.Input),
		"output_tokens":      r.lengths(&c.Output),
		"later_input_tokens": r.lengths(&c.Later),
		"turns":              r.lengths(&c.Turns),
		"think_time":         r.think(&c.Think),
		"stream":             r.boolean(&c.Stream),
		"prefix": func(n *node, path string) {
			p := &c.Prefix
			r.object(n, path, keys{"tenants": r.whole(&p.Tenants, 1), "tokens": r.whole(&p.Tokens, 1), "skew": r.number(&p.Skew)}, "tenants", "tokens")
		},
	}, "name")
	if len(r.errs) == before {
		if err := c.validate(); err != nil {
			r.fail(n.line, path, "%w", err)
		}
	}
	return c
}

func (r *reader) models(n *node, path string) map[string]float64 {
	models := map[string]float64{}
	known := keys{}
	for _, f := range n.fields {
		known[f.name] = func(n *node, path string) {
			weight, before := 0.0, len(r.errs)
			r.number(&weight)(n, path)
			if len(r.errs) == before && (weight == 0 || f.name == "") {
				r.fail(n.line, path, "weight %v; want a name with a number above 0", n)
			}
			models[f.name] = weight
		}
	}
	r.object(n, path, known)
	if n.isMap && len(n.fields) == 0 {
		r.fail(n.line, path, "no model; want one, or leave the key out")
	}
	return models
}

func (r *reader) text(to *string) func(*node, string) {
	return func(n *node, path string) {
		s, ok := n.value.(string)
		if !ok || s == "" {
			r.fail(n.line, path, "%v; want a string", n)
		}
		*to = s
	}
}

func (r *reader) boolean(to *bool) func(*node, string) {
	return func(n *node, path string) {
		b, ok := n.value.(bool)
		if !ok {
			r.fail(n.line, path, "%v; want true or false", n)
		}
		*to = b
	}
}

func (r *reader) whole(to *int, least int) func(*node, string) {
	return func(n *node, path string) {
		number, _ := n.value.(json.Number)
		i, err := strconv.Atoi(string(number))
		if err != nil || i < least {
			r.fail(n.line, path, "%v; want a whole number, at least %d", n, least)
		}
		*to = i
	}
}

func (r *reader) number(to *float64) func(*node, string) {
	return func(n *node, path string) {
		number, _ := n.value.(json.Number)
		f, err := number.Float64()
		if err != nil || f < 0 || math.IsInf(f, 0) {
			r.fail(n.line, path, "%v; want a number, not below 0", n)
		}
		*to = f
	}
}

func (r *reader) span(to *time.Duration) func(*node, string) {
	return func(n *node, path string) {
		s, _ := n.value.(string)
		d, err := time.ParseDuration(s)
		if err != nil || d <= 0 {
			r.fail(n.line, path, `%v; want a time above 0 like "30s"`, n)
		}
		*to = d
	}
}

func (r *reader) lengths(to *trace.Lengths) func(*node, string) {
	return func(n *node, path string) {
		s, ok := n.value.(string)
		if number, is := n.value.(json.Number); is {
			s, ok = number.String(), true
		}
		l, err := trace.ParseLengths(s)
		switch {
		case !ok:
			r.fail(n.line, path, "%v; want lengths like 512, \"100..2000\" or \"lognormal:512,0.8\"", n)
		case err != nil:
			r.fail(n.line, path, "%w", err)
		}
		*to = l
	}
}

func (r *reader) think(to *Think) func(*node, string) {
	return func(n *node, path string) {
		s, _ := n.value.(string)
		t, err := ParseThink(s)
		if err != nil {
			r.fail(n.line, path, "%w", err)
		}
		*to = t
	}
}
