//go:build linux

package main

import (
	"math"
	"slices"
)

// metric is a figure of a run.
type metric struct {
	key   string
	name  string // with its unit, for a table
	in    func(c cell) bool
	more  bool // more is better
	value func(o, direct *outcome) float64
}

const us = 1e3 // ns in a microsecond

// of tells of a cell whether it is of a kind.
func of(kinds ...kind) func(c cell) bool {
	return func(c cell) bool { return slices.Contains(kinds, c.Kind) }
}

func probed(c cell) bool { return c.Probes }

// metrics are the figures of all cells; the first one of a cell is the one its
// ratios are of.
var metrics = []metric{
	{key: "cpu", name: "CPU µs/req", in: of(posts), value: func(o, _ *outcome) float64 { return per(o.CPU, o.Answers) / us }},
	{key: "cpu", name: "CPU µs/event", in: of(streams), value: func(o, _ *outcome) float64 { return per(o.CPU, o.Events) / us }},
	{key: "cpu", name: "CPU ms/GiB", in: of(bulks), value: func(o, _ *outcome) float64 { return per(o.CPU, o.Bytes) * (1 << 30) / 1e6 }},
	{key: "rate", name: "req/s", in: of(posts), more: true, value: func(o, _ *outcome) float64 { return float64(o.Answers) / o.Seconds }},
	{key: "rate", name: "events/s", in: of(streams), more: true, value: func(o, _ *outcome) float64 { return float64(o.Events) / o.Seconds }},
	{key: "rate", name: "MB/s", in: of(bulks), more: true, value: func(o, _ *outcome) float64 { return float64(o.Bytes) / o.Seconds / 1e6 }},
	{key: "p50", name: "p50 µs", in: of(posts, streams), value: func(o, _ *outcome) float64 { return positive(o.P50) / us }},
	{key: "p99", name: "p99 µs", in: of(posts, streams), value: func(o, _ *outcome) float64 { return positive(o.P99) / us }},
	{key: "added50", name: "+p50 µs", in: of(posts, streams), value: func(o, d *outcome) float64 { return added(o, d, func(o *outcome) int64 { return o.P50 }) }},
	{key: "added99", name: "+p99 µs", in: of(posts, streams), value: func(o, d *outcome) float64 { return added(o, d, func(o *outcome) int64 { return o.P99 }) }},
	{key: "first50", name: "first byte p50 µs", in: probed, value: func(o, _ *outcome) float64 { return positive(o.FirstP50) / us }},
	{key: "first99", name: "first byte p99 µs", in: of(streams), value: func(o, _ *outcome) float64 { return positive(o.FirstP99) / us }},
	{key: "full50", name: "full p50 µs", in: probed, value: func(o, _ *outcome) float64 { return positive(o.FullP50) / us }},
	{key: "full99", name: "full p99 µs", in: probed, value: func(o, _ *outcome) float64 { return positive(o.FullP99) / us }},
	{key: "memory", name: "KiB/stream", in: of(streams), value: memory},
	{key: "memory", name: "KiB/conn", in: of(idles), value: memory},
	{key: "mute", name: "before first byte ms", in: of(leaves), value: func(o, _ *outcome) float64 { return noticed(o.LeaveMute) }},
	{key: "stall", name: "silent stream ms", in: of(leaves), value: func(o, _ *outcome) float64 { return noticed(o.LeaveStall) }},
	{key: "stream", name: "between events ms", in: of(leaves), value: func(o, _ *outcome) float64 { return noticed(o.LeaveStream) }},
	{key: "errors", name: "errors", in: func(cell) bool { return true }, value: func(o, _ *outcome) float64 { return float64(o.failures()) }},
}

// metricsOf returns the figures of a cell.
func metricsOf(c cell) (out []metric) {
	for _, m := range metrics {
		if m.in(c) {
			out = append(out, m)
		}
	}
	return out
}

func per(sum, n int64) float64 {
	if sum == 0 || n == 0 {
		return math.NaN()
	}
	return float64(sum) / float64(n)
}

func positive(v int64) float64 {
	if v <= 0 {
		return math.NaN()
	}
	return float64(v)
}

// added is what a proxy adds to a latency without it, in µs.
func added(o, direct *outcome, of func(*outcome) int64) float64 {
	if direct == nil || direct == o {
		return math.NaN()
	}
	return (positive(of(o)) - positive(of(direct))) / us
}

func memory(o, _ *outcome) float64 {
	if o.Connected == 0 || o.BaseKiB == 0 {
		return math.NaN()
	}
	return float64(o.FullKiB-o.BaseKiB) / float64(o.Connected)
}

// noticed is the median of how long it took; infinite where it was mostly never.
func noticed(ms []float64) float64 {
	if len(ms) == 0 {
		return math.NaN()
	}
	v := slices.Clone(ms)
	for i := range v {
		if v[i] < 0 {
			v[i] = math.Inf(1)
		}
	}
	return median(v)
}

func (o *outcome) failures() (n int) {
	for _, c := range o.Errors {
		n += c
	}
	return n
}
