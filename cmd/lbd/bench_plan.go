package main

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"lbd/bench/load"
	"lbd/bench/load/workload"
	"lbd/bench/trace"
)

// plan is the traffic to send, from flags, a workload file or a trace.
type plan struct {
	requests         func(trace.Mix, uint64) iter.Seq[load.Request]
	describe         func(models map[string]float64) map[string]string
	concurrency      int
	ramp             time.Duration
	duration, warmup time.Duration
	slo              load.SLO

	failed    error // what ended a trace early
	dropped   int   // trace requests above maxLength
	maxLength int
}

func (p *plan) warnings() []string {
	if p.dropped == 0 {
		return nil
	}
	return []string{fmt.Sprintf("%d trace requests above --max-length %d left out", p.dropped, p.maxLength)}
}

func (o *benchOptions) plan(cmd *cobra.Command) (*plan, error) {
	if o.traceFile != "" {
		return o.replay()
	}
	w, err := o.workload(cmd)
	if err != nil {
		return nil, err
	}
	p := &plan{requests: w.Draw, describe: w.Describe, concurrency: w.Arrival.Concurrency, duration: w.Duration, warmup: w.Warmup, slo: w.SLO}
	if p.concurrency > 0 {
		p.ramp = w.Arrival.RampOver
	}
	return p, nil
}

// workload is the file's, with what the flags say instead, or the flags' own.
func (o *benchOptions) workload(cmd *cobra.Command) (*workload.Workload, error) {
	w := &workload.Workload{Name: "flags"}
	if o.workloadFile != "" {
		var err error
		if w, err = workload.Read(o.workloadFile); err != nil {
			return nil, usageError{err}
		}
	} else {
		class, err := o.class.class()
		if err != nil {
			return nil, err
		}
		w.Classes = []workload.Class{class}
	}
	if err := o.override(cmd, w); err != nil {
		return nil, err
	}
	if err := w.Validate(); err != nil {
		return nil, usageError{err}
	}
	return w, nil
}

// override lets the flags that were given go before the file.
func (o *benchOptions) override(cmd *cobra.Command, w *workload.Workload) error {
	given := cmd.Flags().Changed
	if given("rate") {
		w.Arrival.Rate, w.Arrival.Concurrency = o.arrival.Rate, 0
	}
	if given("concurrency") {
		// A process and the ramp's rates are of the file's rate.
		w.Arrival = workload.Arrival{Concurrency: o.arrival.Concurrency, RampOver: w.Arrival.RampOver}
	}
	if given("arrival") {
		w.Arrival.Process, w.Arrival.Burstiness = o.arrival.Process, 0
	}
	if given("burstiness") {
		w.Arrival.Burstiness = o.arrival.Burstiness
	}
	if given("ramp") {
		w.Arrival.RampOver = o.arrival.RampOver
	}
	if given("ramp-from") {
		w.Arrival.RampFrom = o.arrival.RampFrom
	}
	if given("ramp-shape") {
		w.Arrival.RampShape = o.arrival.RampShape
	}
	if given("requests") {
		w.Requests = o.requests
	}
	if given("duration") {
		w.Duration = o.duration
	}
	if given("warmup") {
		w.Warmup = o.warmup
	}
	if len(o.models) > 0 {
		for i := range w.Classes {
			w.Classes[i].Models = nil
		}
	}
	return o.parseSLO(&w.SLO)
}

func (o *benchOptions) parseSLO(to *load.SLO) error {
	if o.slo == "" {
		return nil
	}
	slo, err := load.ParseSLO(o.slo)
	if err != nil {
		return usagef("--slo: %w", err)
	}
	*to = slo
	return nil
}

// class is the flags' only one; without a name, results have no word for it.
func (c *classFlags) class() (workload.Class, error) {
	class := workload.NewClass("")
	class.Stream, class.Prefix = c.stream, c.prefix
	for _, l := range []struct {
		flag, value string
		to          *trace.Lengths
	}{
		{"--input-tokens", c.input, &class.Input}, {"--output-tokens", c.output, &class.Output},
		{"--turns", c.turns, &class.Turns}, {"--later-input-tokens", c.later, &class.Later},
	} {
		if l.value == "" {
			continue
		}
		lengths, err := trace.ParseLengths(l.value)
		if err != nil {
			return class, usagef("%s: %w", l.flag, err)
		}
		*l.to = lengths
	}
	think, err := workload.ParseThink(c.think)
	if err != nil {
		return class, usagef("--think-time: %w", err)
	}
	class.Think = think
	return class, nil
}

// replay is the plan of a trace.
func (o *benchOptions) replay() (*plan, error) {
	t, err := trace.Open(o.traceFile, o.traceFormat, o.seed)
	if err != nil {
		return nil, usageError{err}
	}
	p := &plan{concurrency: o.arrival.Concurrency, duration: o.duration, warmup: o.warmup, maxLength: o.maxLength, describe: o.describeTrace}
	if err := o.parseSLO(&p.slo); err != nil {
		return nil, err
	}
	t = t.Window(o.traceOffset, 0).SpeedUp(o.traceSpeed)
	if o.maxLength > 0 {
		t = t.MaxTokens(o.maxLength, func(trace.Arrival) { p.dropped++ })
	}
	if o.requests > 0 {
		t = t.First(o.requests)
	}
	p.requests = func(mix trace.Mix, seed uint64) iter.Seq[load.Request] {
		return p.arrivals(t.WithModels(mix, seed), o.class.stream)
	}
	return p, nil
}

// arrivals turns a trace into requests. The error that ends it early goes to
// failed.
func (p *plan) arrivals(t *trace.Trace, stream bool) iter.Seq[load.Request] {
	return func(yield func(load.Request) bool) {
		for a, err := range t.Arrivals {
			if err != nil {
				p.failed = err
				return
			}
			if !yield(load.Request{
				At: a.At, Model: a.Model, PromptTokens: a.PromptTokens, OutputTokens: a.OutputTokens,
				Stream: stream, Blocks: a.Blocks, BlockTokens: t.BlockTokens,
			}) {
				return
			}
		}
	}
}

func (o *benchOptions) describeTrace(models map[string]float64) map[string]string {
	d := map[string]string{
		"name": "trace", "trace": filepath.Base(o.traceFile), "trace_format": o.traceFormat, "trace_offset": o.traceOffset.String(),
		"trace_speed": fmt.Sprint(o.traceSpeed), "max_length": strconv.Itoa(o.maxLength), "models": describeModels(models),
		"stream": strconv.FormatBool(o.class.stream), "arrival": "trace",
	}
	if o.arrival.Concurrency > 0 {
		d["arrival"] = fmt.Sprintf("concurrency %d", o.arrival.Concurrency)
	}
	if o.requests > 0 {
		d["requests"] = strconv.Itoa(o.requests)
	}
	if o.duration > 0 {
		d["duration"] = o.duration.String()
	}
	if o.warmup > 0 {
		d["warmup"] = o.warmup.String()
	}
	if o.slo != "" {
		d["slo"] = o.slo
	}
	return d
}

func describeModels(models map[string]float64) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(models)) {
		parts = append(parts, fmt.Sprintf("%s=%v", name, models[name]))
	}
	return strings.Join(parts, ",")
}

// mix is the models to ask for.
type mix struct {
	trace.Mix
	names   []string
	weights map[string]float64
}

// mix asks the target where no flag says it.
func (o *benchOptions) mix(ctx context.Context) (*mix, error) {
	specs := o.models
	if len(specs) == 0 {
		var err error
		if specs, err = load.Models(ctx, o.target, o.apiKey); err != nil {
			return nil, exitError{exitStart, err}
		}
		for i, name := range specs {
			specs[i] = name + "=1" // a name may end in = and a number itself
		}
	}
	m := &mix{weights: map[string]float64{}}
	for _, spec := range specs {
		one, err := trace.ParseMix([]string{spec})
		if err != nil {
			return nil, usagef("--model: %w", err)
		}
		name, weight := one.Names()[0], 1.
		if len(name) < len(spec) {
			if weight, err = strconv.ParseFloat(spec[len(name)+1:], 64); err != nil {
				panic("BUG: bench: a weight that was read before: " + err.Error())
			}
		}
		if m.weights[name] == 0 {
			m.names = append(m.names, name)
		}
		m.weights[name] += weight
	}
	slices.Sort(m.names)
	weights := make([]float64, len(m.names))
	for i, name := range m.names {
		weights[i] = m.weights[name]
	}
	var err error
	m.Mix, err = trace.NewMix(m.names, weights)
	return m, err
}
