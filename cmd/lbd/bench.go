package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"lbd/bench/load"
	"lbd/bench/trace"
)

// benchOptions are the flags of lbd bench.
type benchOptions struct {
	target, api, apiKey string
	models              []string

	traceFile, traceFormat string
	traceOffset            time.Duration
	traceSpeed             float64
	maxLength              int

	rate          float64
	concurrency   int
	requests      int
	duration      time.Duration
	warmup        time.Duration
	input, output string
	stream        bool
	seed          uint64
	timeout       time.Duration

	file         string
	records      bool
	quiet        bool
	maxErrorRate float64

	dropped int // trace requests above maxLength
}

func newBenchCommand() *cobra.Command {
	o := &benchOptions{}
	cmd := &cobra.Command{
		Use:   "bench --target URL (--rate R | --concurrency C | --trace FILE) [flags]",
		Short: "Load an OpenAI-compatible server and measure it",
		Long: `Send requests to an OpenAI-compatible server and report TTFT, ITL, TPOT and E2E.

With --rate or --trace the loop is open: each request is sent at its time,
whatever became of the ones before it, and latency counts from that time. With
--concurrency it is closed: so many requests at any time. Prompts are made of
common words, 4 bytes for each token; no two begin alike, so that no prefix cache
hits by accident, unless a trace says which parts are shared. The output length
is forced with max_tokens, min_tokens and ignore_eos.

Lengths are written 512 (always), 100..2000 (uniform), lognormal:512,0.8 (median
and sigma, within 1..131072) or lognormal:512,0.8,16..4096.

Exits with 3 when the figures should not be trusted: the generator was late (over
50 ms at p99), too many requests failed, or the run was interrupted.`,
		Example: `  lbd bench --target http://127.0.0.1:8080 --rate 10 --duration 1m
  lbd bench --target http://127.0.0.1:8080 --concurrency 64 --requests 1000 --input-tokens lognormal:512,0.8
  lbd bench --target http://127.0.0.1:8080 --trace conv.csv.gz --trace-format azure --duration 5m --trace-speed 2 --output azure.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	o.addFlags(cmd)
	return cmd
}

func (o *benchOptions) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.target, "target", "", "base `URL` of the server")
	f.StringArrayVar(&o.models, "model", nil, "`NAME[=WEIGHT]` of a model to ask for; repeatable (default: all the target serves, equally)")
	f.StringVar(&o.api, "api", string(load.Chat), "chat or completions")
	f.StringVar(&o.apiKey, "api-key", "", "bearer token (default: $LBD_BENCH_API_KEY)")

	f.Float64Var(&o.rate, "rate", 0, "open loop: Poisson arrivals, requests per second")
	f.IntVar(&o.concurrency, "concurrency", 0, "closed loop: requests at any time; with --trace its lengths without its times")
	f.StringVar(&o.traceFile, "trace", "", "open loop: `file` with arrivals, plain or gzip")
	f.StringVar(&o.traceFormat, "trace-format", "", "azure or mooncake")
	f.DurationVar(&o.traceOffset, "trace-offset", 0, "leave out so much of the trace's start, in its own time")
	f.Float64Var(&o.traceSpeed, "trace-speed", 1, "replay the trace so many times as fast")
	f.IntVar(&o.maxLength, "max-length", 131072, "leave out trace requests of more prompt and output tokens together; 0 keeps all")

	f.IntVar(&o.requests, "requests", 0, "stop after so many requests")
	f.DurationVar(&o.duration, "duration", 0, "start no request after this time; those in flight finish")
	f.DurationVar(&o.warmup, "warmup", 0, "leave the requests of the first so long out of the results")
	f.StringVar(&o.input, "input-tokens", "512", "`lengths` of the prompts")
	f.StringVar(&o.output, "output-tokens", "128", "`lengths` of the outputs")
	f.BoolVar(&o.stream, "stream", true, "ask for streams; without them there is no TTFT, ITL and TPOT")
	f.Uint64Var(&o.seed, "seed", 0, "the same seed sends the same requests; with 0 one is drawn and reported, so that a "+
		"second run does not find the first one's prompts in a prefix cache")
	f.DurationVar(&o.timeout, "timeout", 10*time.Minute, "longest time for one request")

	f.StringVar(&o.file, "output", "", "write the results to this `file` (JSON)")
	f.BoolVar(&o.records, "records", true, "put a record of each request into --output")
	f.BoolVar(&o.quiet, "quiet", false, "no progress and no table")
	f.Float64Var(&o.maxErrorRate, "max-error-rate", .01, "largest part of the requests that may fail")
}

func (o *benchOptions) run(cmd *cobra.Command) error {
	if err := o.check(); err != nil {
		return err
	}
	if o.seed == 0 {
		o.seed = uint64(rand.Uint32()) + 1
	}
	o.apiKey = cmp.Or(o.apiKey, os.Getenv("LBD_BENCH_API_KEY"))
	source, err := o.source()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	mix, err := o.mix(ctx)
	if err != nil {
		return err
	}
	sink, err := newResultFile(o.file)
	if err != nil {
		return err
	}
	defer sink.discard()
	res, err := o.measure(ctx, cmd, source.WithModels(mix, o.seed))
	if err != nil {
		return err
	}
	if err := sink.keep(res); err != nil {
		return err
	}
	if !o.quiet {
		if err := res.WriteTable(cmd.OutOrStdout()); err != nil {
			return err
		}
	}
	if err := res.Check(o.maxErrorRate); err != nil {
		reasons := strings.ReplaceAll(err.Error(), "\n", "; ")
		return exitError{exitMeasure, fmt.Errorf("not to be trusted: %s", reasons)}
	}
	return nil
}

// check finds what cannot be meant before anything is opened or asked.
func (o *benchOptions) check() error {
	switch {
	case o.target == "":
		return usagef("no target; want --target URL")
	case o.traceFile == "" && o.rate == 0 && o.concurrency == 0:
		return usagef("no load; want --rate, --concurrency or --trace")
	case o.rate != 0 && (o.traceFile != "" || o.concurrency != 0):
		return usagef("--rate goes neither with --trace nor with --concurrency")
	case o.traceFile == "" && o.requests <= 0 && o.duration <= 0:
		return usagef("no end; want --requests or --duration")
	case o.traceFile == "" && (o.traceFormat != "" || o.traceOffset != 0 || o.traceSpeed != 1):
		return usagef("--trace-... without --trace")
	case o.traceFile != "" && o.traceFormat == "":
		return usagef("trace without a format; want --trace-format %s or %s", trace.FormatAzure, trace.FormatMooncake)
	case !(o.traceSpeed > 0):
		return usagef("--trace-speed %v; want more than 0", o.traceSpeed)
	case !(o.maxErrorRate >= 0 && o.maxErrorRate <= 1):
		return usagef("--max-error-rate %v; want 0 to 1", o.maxErrorRate)
	}
	for name, negative := range map[string]bool{
		"--rate": o.rate < 0, "--concurrency": o.concurrency < 0, "--requests": o.requests < 0, "--duration": o.duration < 0,
		"--warmup": o.warmup < 0, "--timeout": o.timeout < 0, "--trace-offset": o.traceOffset < 0, "--max-length": o.maxLength < 0,
	} {
		if negative {
			return usagef("%s below 0", name)
		}
	}
	return nil
}

// source is where the arrivals come from; their models are still open.
func (o *benchOptions) source() (*trace.Trace, error) {
	if o.traceFile == "" {
		return o.synthetic()
	}
	t, err := trace.Open(o.traceFile, o.traceFormat, o.seed)
	if err != nil {
		return nil, usageError{err}
	}
	t = t.Window(o.traceOffset, 0).SpeedUp(o.traceSpeed)
	if o.maxLength > 0 {
		t = t.MaxTokens(o.maxLength, func(trace.Arrival) { o.dropped++ })
	}
	if o.requests > 0 {
		t = t.First(o.requests)
	}
	return t, nil
}

func (o *benchOptions) synthetic() (*trace.Trace, error) {
	input, err := trace.ParseLengths(o.input)
	if err != nil {
		return nil, usagef("--input-tokens: %w", err)
	}
	output, err := trace.ParseLengths(o.output)
	if err != nil {
		return nil, usagef("--output-tokens: %w", err)
	}
	t, err := trace.Synthetic{Rate: o.rate, Requests: o.requests, Prompt: input, Output: output, Seed: o.seed}.Trace()
	if err != nil {
		return nil, usageError{err}
	}
	return t, nil
}

// mix is the models to ask for.
func (o *benchOptions) mix(ctx context.Context) (trace.Mix, error) {
	names := o.models
	if len(names) > 0 {
		mix, err := trace.ParseMix(names)
		if err != nil {
			return mix, usagef("--model: %w", err)
		}
		return mix, nil
	}
	names, err := load.Models(ctx, o.target, o.apiKey)
	if err != nil {
		return trace.Mix{}, exitError{exitStart, err}
	}
	weights := make([]float64, len(names))
	for i := range weights {
		weights[i] = 1
	}
	return trace.NewMix(names, weights)
}

func (o *benchOptions) measure(ctx context.Context, cmd *cobra.Command, t *trace.Trace) (*load.Results, error) {
	var readErr error
	options := load.Options{
		Target:      o.target,
		Requests:    o.sequence(t, &readErr),
		API:         load.API(o.api),
		Concurrency: o.concurrency,
		Duration:    o.duration,
		Warmup:      o.warmup,
		Timeout:     o.timeout,
		APIKey:      o.apiKey,
		Seed:        o.seed,
		KeepRecords: o.file != "" && o.records,
	}
	if screen := terminal(cmd.ErrOrStderr()); screen != nil && !o.quiet {
		options.Progress = func(s load.Snapshot) { fmt.Fprint(screen, clearLine, progressLine(s)) }
		defer fmt.Fprint(screen, clearLine)
	}
	runner, err := load.New(options)
	if err != nil {
		return nil, usageError{err}
	}
	res, err := runner.Run(ctx)
	if o.dropped > 0 {
		res.Warnings = append(res.Warnings, fmt.Sprintf("%d trace requests above --max-length %d left out", o.dropped, o.maxLength))
	}
	// A trace that cannot be read to its end is reported, not measured in part.
	return res, errors.Join(err, readErr)
}

// sequence turns arrivals into requests. The error that ends a trace early goes
// to failed.
func (o *benchOptions) sequence(t *trace.Trace, failed *error) iter.Seq[load.Request] {
	return func(yield func(load.Request) bool) {
		for a, err := range t.Arrivals {
			if err != nil {
				*failed = err
				return
			}
			q := load.Request{
				At:           a.At,
				Model:        a.Model,
				PromptTokens: a.PromptTokens,
				OutputTokens: a.OutputTokens,
				Stream:       o.stream,
				Blocks:       a.Blocks,
				BlockTokens:  t.BlockTokens,
			}
			if !yield(q) {
				return
			}
		}
	}
}

// terminal is w if a person watches it, else nil.
func terminal(w io.Writer) *os.File {
	f, ok := w.(*os.File)
	if !ok {
		return nil
	}
	if info, err := f.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return nil
	}
	return f
}

// clearLine goes to the start of the line and erases it (ECMA-48 EL).
const clearLine = "\r\x1b[K"

func progressLine(s load.Snapshot) string {
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	return fmt.Sprintf("%.0f s: %d done, %d in flight, %d failed, %.1f/s  TTFT p50 %.0f p99 %.0f  ITL p50 %.1f p99 %.1f ms",
		s.Elapsed.Seconds(), s.Done, s.InFlight, s.Errors, s.RecentDone,
		ms(s.RecentTTFT.P50), ms(s.RecentTTFT.P99), ms(s.RecentITL.P50), ms(s.RecentITL.P99))
}

// resultFile is a file that appears when the results are complete. It is begun
// before the run: a path that cannot be written is known before, not after, an
// hour of load.
type resultFile struct {
	path string
	temp *os.File // nil when no file is wanted
}

func newResultFile(path string) (*resultFile, error) {
	if path == "" {
		return &resultFile{}, nil
	}
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return nil, usagef("cannot write --output: %w", err)
	}
	return &resultFile{path: path, temp: temp}, nil
}

func (f *resultFile) keep(res *load.Results) error {
	if f.temp == nil {
		return nil
	}
	encoder := json.NewEncoder(f.temp)
	encoder.SetIndent("", " ")
	err := encoder.Encode(res)
	if err == nil {
		err = f.temp.Chmod(0o644)
	}
	if err == nil {
		err = f.temp.Close()
	}
	if err == nil {
		err = os.Rename(f.temp.Name(), f.path)
	}
	if err != nil {
		return fmt.Errorf("cannot write --output: %w", err)
	}
	f.temp = nil
	return nil
}

// discard removes what keep has not made final.
func (f *resultFile) discard() {
	if f.temp != nil {
		f.temp.Close()
		os.Remove(f.temp.Name())
	}
}
