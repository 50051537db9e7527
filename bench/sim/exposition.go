package sim

import (
	"math"
	"sort"
	"strconv"
	"strings"
)

// label is one name="value" of a series.
type label struct{ name, value string }

// series is one child of a family. Its registry's lock guards it.
type series struct {
	labels  []label // sorted by name, as client_python sorts them
	shown   bool    // client_python shows a child from its first use on
	value   float64
	hist    *histogram
	created float64 // unix seconds
}

type histogram struct {
	bounds []float64
	counts []uint64 // per bucket, not cumulative; the last is +Inf
	sum    float64
}

func (s *series) set(v float64) { s.value, s.shown = v, true }
func (s *series) add(v float64) { s.value, s.shown = s.value+v, true }

func (s *series) observe(v float64) {
	h := s.hist
	h.counts[sort.SearchFloat64s(h.bounds, v)]++
	h.sum += v
	s.shown = true
}

const (
	counterKind   = "counter"
	gaugeKind     = "gauge"
	histogramKind = "histogram"
	summaryKind   = "summary"
)

// family is one metric with its HELP and TYPE lines. name carries the _total
// of a counter, as the text format prints it.
type family struct {
	name, help, kind string
	bounds           []float64
	series           []*series
}

// child finds or makes the series with these labels.
func (f *family) child(now float64, labels ...label) *series {
	sort.Slice(labels, func(i, j int) bool { return labels[i].name < labels[j].name })
	for _, s := range f.series {
		if sameLabels(s.labels, labels) {
			return s
		}
	}
	s := &series{labels: labels, created: now}
	if f.kind == histogramKind || f.kind == summaryKind {
		s.hist = &histogram{bounds: f.bounds, counts: make([]uint64, len(f.bounds)+1)}
	}
	f.series = append(f.series, s)
	return s
}

func sameLabels(a, b []label) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// page renders families as client_python does, either its single-process
// registry (v0.19: counts before the sum, _created series) or its
// multiprocess collector (v0.6.4: the sum before the buckets, no _created).
type page struct {
	buf   []byte
	multi bool
	only  map[string]bool // name[] filter; nil = everything
}

func (p *page) family(f *family) {
	lines := p.samples(f)
	if len(lines) == 0 {
		return
	}
	p.heading(f.name, f.help, f.kind)
	p.buf = append(p.buf, lines...)
	if !p.multi && f.kind != gaugeKind {
		p.created(f)
	}
}

func (p *page) heading(name, help, kind string) {
	p.buf = append(p.buf, "# HELP "+name+" "+help+"\n# TYPE "+name+" "+kind+"\n"...)
}

func (p *page) samples(f *family) []byte {
	var b []byte
	for _, s := range f.series {
		switch {
		case !s.shown:
		case f.kind == histogramKind:
			b = p.histogram(b, f.name, s)
		case f.kind == summaryKind:
			b = p.sample(b, f.name+"_count", s.labels, "", float64(s.hist.counts[0]))
			b = p.sample(b, f.name+"_sum", s.labels, "", s.hist.sum)
		default:
			b = p.sample(b, f.name, s.labels, "", s.value)
		}
	}
	return b
}

func (p *page) histogram(b []byte, name string, s *series) []byte {
	h := s.hist
	if p.multi {
		b = p.sample(b, name+"_sum", s.labels, "", h.sum)
	}
	var n uint64
	for i, c := range h.counts {
		n += c
		le := math.Inf(1)
		if i < len(h.bounds) {
			le = h.bounds[i]
		}
		b = p.sample(b, name+"_bucket", s.labels, formatFloat(le), float64(n))
	}
	b = p.sample(b, name+"_count", s.labels, "", float64(n))
	if !p.multi {
		b = p.sample(b, name+"_sum", s.labels, "", h.sum)
	}
	return b
}

// created writes the family of creation times that client_python's text
// format puts behind every counter, histogram and summary.
func (p *page) created(f *family) {
	name := f.name
	if f.kind == counterKind { // a histogram may end in _total, too
		name = strings.TrimSuffix(name, "_total")
	}
	name += "_created"
	var b []byte
	for _, s := range f.series {
		if s.shown {
			b = p.sample(b, name, s.labels, "", s.created)
		}
	}
	if len(b) > 0 {
		p.heading(name, f.help, gaugeKind)
		p.buf = append(p.buf, b...)
	}
}

func (p *page) sample(b []byte, name string, labels []label, le string, v float64) []byte {
	if p.only != nil && !p.only[name] {
		return b
	}
	b = append(b, name...)
	sep := byte('{')
	put := func(name, value string) {
		b = append(b, sep)
		b = append(append(b, name...), `="`...)
		b = append(append(b, labelEscaper.Replace(value)...), '"')
		sep = ','
	}
	for _, l := range labels {
		if le != "" && l.name > "le" {
			put("le", le)
			le = ""
		}
		put(l.name, l.value)
	}
	if le != "" {
		put("le", le)
	}
	if sep == ',' {
		b = append(b, '}')
	}
	b = append(append(b, ' '), formatFloat(v)...)
	return append(b, '\n')
}

var labelEscaper = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

// formatFloat is client_python's floatToGoString: Python's repr, with an
// exponent from 1e6 on.
func formatFloat(v float64) string {
	switch {
	case math.IsInf(v, 1):
		return "+Inf"
	case math.IsInf(v, -1):
		return "-Inf"
	case math.IsNaN(v):
		return "NaN"
	}
	s := pythonFloat(v)
	dot := strings.IndexByte(s, '.')
	if v <= 0 || dot <= 6 {
		return s
	}
	digits := strings.TrimRight(s[:1]+"."+s[1:dot]+s[dot+1:], "0.")
	return digits + "e+0" + strconv.Itoa(dot-1)
}

// pythonFloat is repr(float): shortest digits, exponent below 1e-4 and from
// 1e16 on.
func pythonFloat(v float64) string {
	if a := math.Abs(v); a != 0 && (a < 1e-4 || a >= 1e16) {
		return strconv.FormatFloat(v, 'e', -1, 64)
	}
	s := strconv.FormatFloat(v, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}
