package main

import (
	"math"
	"slices"
)

// metric is a figure of a run.
type metric struct {
	key   string
	name  string // with its unit, for a table
	kinds []kind
	more  bool // more is better
	value func(o, direct *outcome) float64
}

const us = 1e3 // ns in a microsecond

var metrics = []metric{
	{key: "cpu", name: "CPU µs/request", kinds: []kind{posts}, value: func(o, _ *outcome) float64 { return per(o.CPU, o.Answers) / us }},
	{key: "cpu", name: "CPU µs/event", kinds: []kind{streams}, value: func(o, _ *outcome) float64 { return per(o.CPU, o.Events) / us }},
	{key: "cpu", name: "CPU ms/GiB", kinds: []kind{bulks}, value: func(o, _ *outcome) float64 { return per(o.CPU, o.Bytes) * (1 << 30) / 1e6 }},
	{key: "rate", name: "requests/s", kinds: []kind{posts}, more: true, value: func(o, _ *outcome) float64 { return float64(o.Answers) / o.Seconds }},
	{key: "rate", name: "events/s", kinds: []kind{streams}, more: true, value: func(o, _ *outcome) float64 { return float64(o.Events) / o.Seconds }},
	{key: "rate", name: "MB/s", kinds: []kind{bulks}, more: true, value: func(o, _ *outcome) float64 { return float64(o.Bytes) / o.Seconds / 1e6 }},
	{key: "p50", name: "p50 µs", kinds: []kind{posts, streams}, value: func(o, _ *outcome) float64 { return positive(o.P50) / us }},
	{key: "p99", name: "p99 µs", kinds: []kind{posts, streams}, value: func(o, _ *outcome) float64 { return positive(o.P99) / us }},
	{key: "added50", name: "added p50 µs", kinds: []kind{posts, streams}, value: func(o, d *outcome) float64 { return added(o, d, func(o *outcome) int64 { return o.P50 }) }},
	{key: "added99", name: "added p99 µs", kinds: []kind{posts, streams}, value: func(o, d *outcome) float64 { return added(o, d, func(o *outcome) int64 { return o.P99 }) }},
	{key: "first50", name: "first byte p50 µs", kinds: []kind{streams}, value: func(o, _ *outcome) float64 { return positive(o.FirstP50) / us }},
	{key: "first99", name: "first byte p99 µs", kinds: []kind{streams}, value: func(o, _ *outcome) float64 { return positive(o.FirstP99) / us }},
	{key: "full50", name: "first byte p50 µs, full", kinds: []kind{streams}, value: func(o, _ *outcome) float64 { return positive(o.FullP50) / us }},
	{key: "full99", name: "first byte p99 µs, full", kinds: []kind{streams}, value: func(o, _ *outcome) float64 { return positive(o.FullP99) / us }},
	{key: "memory", name: "KiB/stream", kinds: []kind{streams}, value: memory},
	{key: "memory", name: "KiB/connection", kinds: []kind{idles}, value: memory},
	{key: "mute", name: "ms, before the first byte", kinds: []kind{leaves}, value: func(o, _ *outcome) float64 { return noticed(o.LeaveMute) }},
	{key: "stall", name: "ms, in a silent stream", kinds: []kind{leaves}, value: func(o, _ *outcome) float64 { return noticed(o.LeaveStall) }},
	{key: "stream", name: "ms, between events", kinds: []kind{leaves}, value: func(o, _ *outcome) float64 { return noticed(o.LeaveStream) }},
	{key: "errors", name: "errors", kinds: []kind{posts, streams, bulks, idles, leaves}, value: func(o, _ *outcome) float64 { return float64(o.failures()) }},
}

// metricsOf returns the figures of a kind of cell.
func metricsOf(k kind) (out []metric) {
	for _, m := range metrics {
		if slices.Contains(m.kinds, k) {
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
