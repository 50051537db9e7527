//go:build linux

package main

import (
	"fmt"
	"math"
	"slices"
)

// bar is what lbd must reach in a cell: a figure against a rival's of the same
// round, against lbd's own in another cell, or against a number.
type bar struct {
	cell, metric string
	rival        string // empty: the limit is a figure, not a ratio
	base         string // another cell to compare with; with a rival, its own ratio of the two is the measure
	limit        float64
	text         string
}

// bars are the figures the design promises (its section 6; issue 3).
var bars = []bar{
	{cell: "post", metric: "cpu", rival: "nginx", limit: 1, text: "CPU per request, of nginx's"},
	{cell: "post", metric: "cpu", rival: "haproxy", limit: 1, text: "CPU per request, of HAProxy's"},
	{cell: "post", metric: "rate", rival: "nginx", limit: 1, text: "throughput, of nginx's"},
	{cell: "post", metric: "rate", rival: "haproxy", limit: 1, text: "throughput, of HAProxy's"},
	{cell: "post1", metric: "added50", rival: "nginx", limit: 1.1, text: "added p50, of nginx's"},
	{cell: "sse256", metric: "cpu", rival: "nginx", limit: 1, text: "CPU per event, of nginx's"},
	{cell: "sse256", metric: "cpu", rival: "haproxy", limit: 1, text: "CPU per event, of HAProxy's"},
	{cell: "sse256", metric: "added50", rival: "nginx", limit: 1.25, text: "added p50, of nginx's"},
	{cell: "sse256", metric: "added99", rival: "nginx", limit: 1.25, text: "added p99, of nginx's"},
	{cell: "sse1000", metric: "cpu", rival: "nginx", limit: 1, text: "CPU per event, of nginx's"},
	{cell: "sse1000", metric: "cpu", rival: "haproxy", limit: 1, text: "CPU per event, of HAProxy's"},
	{cell: "sse1000", metric: "added50", rival: "nginx", limit: 1.25, text: "added p50, of nginx's"},
	{cell: "sse1000", metric: "added99", rival: "nginx", limit: 1.25, text: "added p99, of nginx's"},
	{cell: "sse10k", metric: "errors", limit: 0, text: "errors"},
	{cell: "sse10k", metric: "memory", rival: "nginx", limit: 1, text: "memory per stream, of nginx's"},
	{cell: "sse10k", metric: "memory", limit: 17, text: "KiB per stream"},
	{cell: "idle", metric: "memory", limit: 8, text: "KiB per idle connection"},
	{cell: "bulk", metric: "rate", rival: "haproxy", limit: 0.95, text: "throughput, of HAProxy's"},
	{cell: "bulk", metric: "cpu", rival: "haproxy", limit: 1, text: "CPU per GiB, of HAProxy's"},
	{cell: "leave", metric: "mute", limit: 5, text: "ms until the replica knows, before the first byte"},
	{cell: "leave", metric: "stall", limit: 5, text: "ms until the replica knows, in a silent stream"},
	{cell: "leave", metric: "stream", limit: 5, text: "ms until the replica knows, between events"},
	// On a machine of two cores the load takes a share of both, so throughput says
	// nothing. Twice the cores give 1.8 times the work where a request costs no
	// more than 2/1.8 of what it does on one. Sharing a core with the load has its own
	// price, though, which nginx pays as well: its workers share nothing with each other.
	{cell: "post2c", metric: "cpu", base: "post1c", limit: 2 / 1.8, text: "CPU per request on two cores, of that on one"},
	{cell: "post2c", metric: "cpu", base: "post1c", rival: "nginx", limit: 2 / 1.8, text: "the same, of nginx's ratio"},
	{cell: "sse2c", metric: "cpu", base: "sse256", limit: 2 / 1.8, text: "CPU per event on two cores, of that on one"},
	{cell: "sse2c", metric: "cpu", base: "sse256", rival: "nginx", limit: 2 / 1.8, text: "the same, of nginx's ratio"},
}

// verdict is how a build of lbd stands to a bar.
type verdict struct {
	bar
	value, low, high float64 // median and spread of the ratios, or of the figure
	more             bool
}

// met tells whether the median is on the right side.
func (v verdict) met() bool {
	if v.more {
		return v.value >= v.limit
	}
	return v.value <= v.limit
}

func (v verdict) String() string {
	switch {
	case math.IsNaN(v.value):
		return "not measured"
	case v.met():
		return "met"
	}
	return "not met"
}

// want is the limit as words.
func (v verdict) want() string {
	if v.more {
		return "≥ " + number(v.limit)
	}
	return "≤ " + number(v.limit)
}

// close tells that rounds disagree about the verdict.
func (v verdict) close() bool {
	return v.low <= v.limit && v.limit <= v.high && v.low != v.high
}

// verdicts judges one build of lbd.
func (r *report) verdicts(peer string) (out []verdict) {
	for _, b := range bars {
		c, ok := r.cellOf(b.cell)
		if !ok {
			continue
		}
		m := metricOf(c.cell, b.metric)
		values := r.toBase(c, b, peer, m)
		if b.rival != "" {
			values = ratios(values, r.toBase(c, b, b.rival, m))
		}
		if len(numbers(values)) == 0 && !slices.Contains(r.in(c), peer) {
			continue
		}
		v := verdict{bar: b, value: median(values), more: m.more}
		v.low, v.high = spread(values)
		out = append(out, v)
	}
	return out
}

// toBase is a figure of a peer in each round, as a ratio to that in the base cell if the
// bar has one; nothing where that was not measured.
func (r *report) toBase(c measured, b bar, peer string, m metric) []float64 {
	values := r.values(c, peer, m)
	if b.base == "" {
		return values
	}
	base, ok := r.cellOf(b.base)
	if !ok {
		return nil
	}
	return ratios(values, r.values(base, peer, m))
}

// metricOf returns the figure of a cell by its key.
func metricOf(c cell, key string) metric {
	for _, m := range metricsOf(c) {
		if m.key == key {
			return m
		}
	}
	panic(fmt.Sprintf("BUG: cell %q has no metric %q", c.Name, key))
}
