package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"lbd/bench/load"
	"lbd/bench/load/workload"
)

// environments are the names --env knows: the ports of compose/baseline.yml and
// compose/managed.yml.
var environments = map[string]string{
	"baseline": "http://localhost:8080",
	"managed":  "http://localhost:8081",
}

// benchOptions are the flags of lbd bench.
type benchOptions struct {
	env, target, api, apiKey string
	models                   []string

	workloadFile string
	arrival      workload.Arrival
	class        classFlags
	slo          string

	traceFile, traceFormat string
	traceOffset            time.Duration
	traceSpeed             float64
	maxLength              int

	requests       int
	duration       time.Duration
	warmup         time.Duration
	warmupRequests int
	seed           uint64
	timeout        time.Duration

	file          string
	results       string
	records       bool
	profileExport bool
	quiet         bool
	maxErrorRate  float64
}

// classFlags describe the one class of a workload that is made from flags.
type classFlags struct {
	input, output, later, turns, think string
	stream                             bool
	prefix                             workload.Prefix
}

func newBenchCommand() *cobra.Command {
	o := &benchOptions{}
	cmd := &cobra.Command{
		Use:   "bench --env baseline|managed|URL (--rate R | --concurrency C | --workload FILE | --trace FILE) [flags]",
		Short: "Load an OpenAI-compatible server and measure it",
		Long: `Send requests to an OpenAI-compatible server and report TTFT, ITL, TPOT and E2E.

With --rate or --trace the loop is open: each request is sent at its time,
whatever became of the ones before it, and latency counts from that time. With
--concurrency it is closed: so many users, each with the next conversation when
one has ended. Prompts are made of common words, 4 bytes for each token; no two
begin alike, so that no prefix cache hits by accident, unless --prefix-tokens,
--turns, a workload or a trace says which parts are shared. The output length is
forced with max_tokens, min_tokens and ignore_eos.

--workload reads all of that from a file, several classes of it if need be; the
flags of load, end, models and limits go before what the file says. See
bench/workloads and bench/README.md.

Lengths are written 512 (always), 100..2000 (uniform), lognormal:512,0.8 (median
and sigma, within 1..131072) or lognormal:512,0.8,16..4096.

The files of the run are left in RESULTS/ENV/lbd-bench_MODEL_TIME/: results.json,
and the same in the formats of genai-perf (profile_export.json,
profile_export_genai_perf.json, profile_export.csv) and guidellm.

Exits with 3 when the figures should not be trusted: the generator was late (over
50 ms at p99), too many requests failed, or the run was interrupted.`,
		Example: `  lbd bench --env managed --workload bench/workloads/default.json
  lbd bench --env baseline --model meta-llama/Llama-3.1-8B-Instruct --concurrency 32 --requests 640
  lbd bench --env http://127.0.0.1:8080 --rate 10 --arrival gamma --burstiness 0.5 --duration 1m --slo ttft=500ms,tpot=50ms
  lbd bench --env managed --rate 2 --turns 2..6 --think-time exponential:5s --prefix-tenants 20 --prefix-tokens 1024 --duration 5m
  lbd bench --env managed --trace conv.csv.gz --trace-format azure --duration 5m --trace-speed 2 --output azure.json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	o.addFlags(cmd)
	return cmd
}

func (o *benchOptions) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.env, "env", "", "what to load: baseline (http://localhost:8080), managed (http://localhost:8081) or a base `URL`")
	f.StringVar(&o.target, "target", "", "the same as --env, a `URL`")
	f.StringArrayVar(&o.models, "model", nil, "`NAME[=WEIGHT]` of a model to ask for; repeatable (default: all the target serves, equally)")
	f.StringVar(&o.api, "api", string(load.Chat), "chat or completions")
	f.StringVar(&o.apiKey, "api-key", "", "bearer token (default: $LBD_BENCH_API_KEY)")

	f.StringVar(&o.workloadFile, "workload", "", "read the traffic from this JSON `file`")
	f.Float64Var(&o.arrival.Rate, "rate", 0, "open loop: conversations per second")
	f.StringVar(&o.arrival.Process, "arrival", "", "open loop: poisson, constant or gamma (default poisson)")
	f.Float64Var(&o.arrival.Burstiness, "burstiness", 0, "shape of gamma arrivals; below 1 comes in bursts (default 1)")
	f.IntVar(&o.arrival.Concurrency, "concurrency", 0, "closed loop: users at any time; with --trace its lengths without its times")
	f.DurationVar(&o.arrival.RampOver, "ramp", 0, "reach --rate, or the last of --concurrency, after this time")
	f.Float64Var(&o.arrival.RampFrom, "ramp-from", 0, "the rate at the start of --ramp")
	f.StringVar(&o.arrival.RampShape, "ramp-shape", "", "linear or exponential (default linear)")
	f.StringVar(&o.traceFile, "trace", "", "open loop: `file` with arrivals, plain or gzip")
	f.StringVar(&o.traceFormat, "trace-format", "", "azure, mooncake or access-log (lbd's own, JSON)")
	f.DurationVar(&o.traceOffset, "trace-offset", 0, "leave out so much of the trace's start, in its own time")
	f.Float64Var(&o.traceSpeed, "trace-speed", 1, "replay the trace so many times as fast")
	f.IntVar(&o.maxLength, "max-length", 131072, "leave out trace requests of more prompt and output tokens together; 0 keeps all")

	f.IntVar(&o.requests, "requests", 0, "stop after so many requests, later turns included")
	f.DurationVar(&o.duration, "duration", 0, "start no request after this time; those in flight finish")
	f.DurationVar(&o.warmup, "warmup", 0, "leave the requests of the first so long out of the results")
	f.IntVar(&o.warmupRequests, "warmup-requests", 0, "leave the first so many conversations out of the results")
	o.class.addFlags(cmd)
	f.StringVar(&o.slo, "slo", "", "`limits` of a good request like ttft=500ms,tpot=50ms,e2e=10s; goodput is the rate of good ones")
	f.Uint64Var(&o.seed, "seed", 0, "the same seed sends the same requests; with 0 one is drawn and reported, so that a "+
		"second run does not find the first one's prompts in a prefix cache")
	f.DurationVar(&o.timeout, "timeout", 10*time.Minute, "longest time for one request")

	f.StringVar(&o.results, "results", "", "leave the files of the run below this `directory` (default: results, but not with --output)")
	f.StringVar(&o.file, "output", "", "write the results to this `file` (JSON)")
	f.BoolVar(&o.records, "records", true, "put a record of each request into the results file")
	f.BoolVar(&o.profileExport, "profile-export", true, "keep every event and write profile_export.json")
	f.BoolVar(&o.quiet, "quiet", false, "no progress and no table")
	f.Float64Var(&o.maxErrorRate, "max-error-rate", .01, "largest part of the requests that may fail")
}

func (c *classFlags) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.input, "input-tokens", "512", "`lengths` of the prompts")
	f.StringVar(&c.output, "output-tokens", "128", "`lengths` of the outputs")
	f.BoolVar(&c.stream, "stream", true, "ask for streams; without them there is no TTFT, ITL and TPOT")
	f.IntVar(&c.prefix.Tenants, "prefix-tenants", 0, "each conversation begins with the prefix of one of so many tenants")
	f.IntVar(&c.prefix.Tokens, "prefix-tokens", 0, "tokens of such a prefix, before those of --input-tokens")
	f.Float64Var(&c.prefix.Skew, "prefix-skew", 0, "draw the k-th tenant in proportion to k^-skew")
	f.StringVar(&c.turns, "turns", "1", "requests in a conversation, written as `lengths` are")
	f.StringVar(&c.later, "later-input-tokens", "", "`lengths` of what the user says in later turns (default: --input-tokens)")
	f.StringVar(&c.think, "think-time", "0s", "`time` before a later turn: 5s, 2s..8s (uniform) or exponential:5s (mean)")
}

func (o *benchOptions) run(cmd *cobra.Command) error {
	if err := o.check(cmd); err != nil {
		return err
	}
	if o.seed == 0 {
		o.seed = uint64(rand.Uint32()) + 1
	}
	o.apiKey = cmp.Or(o.apiKey, os.Getenv("LBD_BENCH_API_KEY"))
	plan, err := o.plan(cmd)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	mix, err := o.mix(ctx)
	if err != nil {
		return err
	}
	out, err := o.open(mix.names)
	if err != nil {
		return err
	}
	defer out.discard()
	res, err := o.measure(ctx, cmd, plan, mix)
	if err != nil {
		return err
	}
	if err := out.keep(res); err != nil {
		return err
	}
	return o.conclude(cmd, res, out)
}

// conclude tells the user, and judges.
func (o *benchOptions) conclude(cmd *cobra.Command, res *load.Results, out *output) error {
	if !o.quiet {
		if err := res.WriteTable(cmd.OutOrStdout()); err != nil {
			return err
		}
		if out.dir != "" {
			fmt.Fprintf(cmd.OutOrStdout(), "\nfiles: %s\n", out.dir)
		}
	}
	if err := res.Check(o.maxErrorRate); err != nil {
		reasons := strings.ReplaceAll(err.Error(), "\n", "; ")
		return exitError{exitMeasure, fmt.Errorf("not to be trusted: %s", reasons)}
	}
	return nil
}

// check finds what cannot be meant before anything is opened or asked.
func (o *benchOptions) check(cmd *cobra.Command) error {
	if err := o.resolveTarget(); err != nil {
		return err
	}
	switch {
	case o.traceFile == "" && o.workloadFile == "" && o.arrival.Rate == 0 && o.arrival.Concurrency == 0:
		return usagef("no load; want --rate, --concurrency, --workload or --trace")
	case o.traceFile != "" && o.workloadFile != "":
		return usagef("--workload and --trace; want one of both")
	case o.arrival.Rate != 0 && (o.traceFile != "" || o.arrival.Concurrency != 0):
		return usagef("--rate goes neither with --trace nor with --concurrency")
	case o.traceFile == "" && o.workloadFile == "" && o.requests <= 0 && o.duration <= 0:
		return usagef("no end; want --requests or --duration")
	case !(o.traceSpeed > 0):
		return usagef("--trace-speed %v; want more than 0", o.traceSpeed)
	case !(o.maxErrorRate >= 0 && o.maxErrorRate <= 1):
		return usagef("--max-error-rate %v; want 0 to 1", o.maxErrorRate)
	}
	for name, negative := range map[string]bool{
		"--rate": o.arrival.Rate < 0, "--concurrency": o.arrival.Concurrency < 0, "--requests": o.requests < 0, "--duration": o.duration < 0,
		"--warmup": o.warmup < 0, "--timeout": o.timeout < 0, "--trace-offset": o.traceOffset < 0, "--max-length": o.maxLength < 0,
		"--warmup-requests": o.warmupRequests < 0,
	} {
		if negative {
			return usagef("%s below 0", name)
		}
	}
	return o.checkTogether(cmd)
}

// checkTogether refuses flags that another one makes meaningless.
func (o *benchOptions) checkTogether(cmd *cobra.Command) error {
	given := func(names ...string) string {
		for _, name := range names {
			if cmd.Flags().Changed(name) {
				return name
			}
		}
		return ""
	}
	class := given("input-tokens", "output-tokens", "later-input-tokens", "turns", "think-time", "stream", "prefix-tenants", "prefix-tokens", "prefix-skew")
	traced := given("trace-format", "trace-offset", "trace-speed", "max-length")
	arrival := given("arrival", "burstiness", "ramp", "ramp-from", "ramp-shape")
	open := given("arrival", "burstiness", "ramp-from", "ramp-shape")
	switch {
	case o.traceFile == "" && traced != "":
		return usagef("--%s without --trace", traced)
	case o.traceFile != "" && class != "" && class != "stream":
		return usagef("--%s with --trace, which has its own", class)
	case o.traceFile != "" && arrival != "":
		return usagef("--%s with --trace, which has its own times", arrival)
	case o.traceFile != "" && o.traceFormat == "":
		return usagef("trace without a format; want --trace-format azure, mooncake or access-log")
	case o.arrival.Concurrency > 0 && open != "":
		return usagef("--%s with --concurrency; want it with --rate", open)
	case o.workloadFile != "" && class != "":
		return usagef("--%s with --workload; want it in the file", class)
	}
	return nil
}

// resolveTarget finds the URL and the name of what is loaded.
func (o *benchOptions) resolveTarget() error {
	switch {
	case o.env == "" && o.target == "":
		return usagef("no target; want --env baseline, managed or a URL")
	case o.env != "" && o.target != "":
		return usagef("--env and --target; want one of both")
	case o.target != "":
		o.env = o.target
	}
	if known := environments[o.env]; known != "" {
		o.target = known
		return nil
	}
	u, err := url.Parse(o.env)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return usagef("target %q; want baseline, managed or a URL like http://host:port", o.env)
	}
	o.target, o.env = o.env, fileName(u.Host)
	return nil
}

// clientGCPercent lets the client collect a fifth as often as by default: its heap
// is small and steady, and a collection takes the core from the streams.
const clientGCPercent = 500

func (o *benchOptions) measure(ctx context.Context, cmd *cobra.Command, p *plan, m *mix) (*load.Results, error) {
	if os.Getenv("GOGC") == "" {
		defer debug.SetGCPercent(debug.SetGCPercent(clientGCPercent))
	}
	options := load.Options{
		Target:         o.target,
		Requests:       p.requests(m.Mix, o.seed),
		API:            load.API(o.api),
		Concurrency:    p.concurrency,
		Ramp:           p.ramp,
		Duration:       p.duration,
		Warmup:         p.warmup,
		WarmupRequests: o.warmupRequests,
		Timeout:        o.timeout,
		APIKey:         o.apiKey,
		SLO:            p.slo,
		Seed:           o.seed,
		KeepBytes:      o.keepBytes(),
		KeepRecords:    true,
	}
	if metrics, ok := load.IsLbd(ctx, o.target); ok {
		options.MetricsURL = metrics
	}
	if !o.quiet {
		show, clear := progressTo(cmd.ErrOrStderr())
		options.Progress = show
		defer clear()
	}
	runner, err := load.New(options)
	if err != nil {
		return nil, usageError{err}
	}
	res, err := runner.Run(ctx)
	res.Tool, res.Environment, res.Workload = "lbd bench "+buildVersion().Version, o.env, p.describe(m.weights)
	if o.warmupRequests > 0 {
		res.Workload["warmup_requests"] = fmt.Sprint(o.warmupRequests)
	}
	if o.api != string(load.Chat) {
		res.Workload["api"] = o.api
	}
	res.Warnings = append(res.Warnings, p.warnings()...)
	// A trace that cannot be read to its end is reported, not measured in part.
	return res, errors.Join(err, p.failed)
}
