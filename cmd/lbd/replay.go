package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"lbd/balancer/strategy"
	"lbd/bench/replay"
	"lbd/bench/replay/rivals"
)

// replayOptions are the flags of lbd replay.
type replayOptions struct {
	traceFile, traceFormat     string
	traceOffset, traceDuration time.Duration
	traceSpeed                 float64
	model                      string
	maxLength                  int
	made                       string
	rate                       float64
	requests, sessions         int
	thinkMax                   time.Duration

	faults []string
	bounds bool

	replicas   string
	preset     string
	fleet      string
	strategies string

	lbds         int
	poll         time.Duration
	seeds        int
	nonStreaming float64
	kvFactor     float64
	blockSize    int
	warmup       float64

	ttft, ttftPerToken, tpot time.Duration
	admission                replay.Limits

	file, html string
	quiet      bool

	dropped int
	models  []string // in the trace
}

func newReplayCommand() *cobra.Command {
	o := &replayOptions{}
	cmd := &cobra.Command{
		Use:   "replay (--trace FILE --trace-format FORMAT | --made KIND --rate R) [flags]",
		Short: "What if: replay traffic against strategies in virtual time",
		Long: `Replay recorded traffic against simulated replicas, in virtual time: an hour takes
seconds. Strategies are lbd's own code; replicas are those of lbd sim, with the
scheduler, KV cache and step times of vLLM on an H100. Every strategy meets the
same arrivals.

Several fleets in --replicas answer what fewer of them would have meant. With
--trace-format access-log the trace is lbd's own access log. --strategies also
takes the rules of other projects:
` + folded(rivals.Names(), ", ") + `.`,
		Example: `  lbd replay --trace conversation_trace.jsonl.gz --trace-format mooncake --trace-speed 5
  lbd replay --trace conv.csv.gz --trace-format azure --strategies cycle,least-waiting --replicas 8,6
  lbd replay --trace access.log --trace-format access-log --strategies least-waiting,least-cost --replicas 8,6 --html what-if.html
  lbd replay --trace agents.jsonl.gz --trace-format agents --sessions 64 --requests 5000
  lbd replay --made shared-prefix --rate 50 --fault crash:3@20s+30s --fault slow:1@10s+1m*2.5`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	o.addFlags(cmd)
	return cmd
}

func (o *replayOptions) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.traceFile, "trace", "", "`file` with arrivals, plain or gzip")
	f.StringVar(&o.traceFormat, "trace-format", "", "azure, mooncake, access-log (lbd's own, JSON) or agents (closed loop)")
	f.DurationVar(&o.traceOffset, "trace-offset", 0, "leave out so much of the trace's start, in its own time")
	f.DurationVar(&o.traceDuration, "trace-duration", 0, "replay so much of the trace, in its own time (default: all)")
	f.Float64Var(&o.traceSpeed, "trace-speed", 1, "replay the trace so many times as fast")
	f.StringVar(&o.model, "model", "", "replay the requests for this model only; replicas serve one model (default: all requests, as of one)")
	f.StringVar(&o.made, "made", "", "made-up traffic instead of a trace: poisson, bursty (code completion, CV 13) or shared-prefix (150 tenants of 6k)")
	f.Float64Var(&o.rate, "rate", 10, "requests per second of --made; 0 = all at once")
	f.IntVar(&o.requests, "requests", 0, "replay so many requests (default: all of a trace; 5000 made up)")
	f.IntVar(&o.sessions, "sessions", 32, "conversations at a time, with --trace-format agents")
	f.DurationVar(&o.thinkMax, "think-max", 10*time.Minute, "longest pause in a conversation")
	f.IntVar(&o.maxLength, "max-length", 131072, "leave out requests of more prompt and output tokens together; 0 keeps all")

	f.StringVar(&o.strategies, "strategies", strings.Join(strategyNames(), ","), "`names` to compare")
	f.StringVar(&o.replicas, "replicas", "8", "number of replicas; several `numbers` compare fleets")
	f.StringVar(&o.preset, "preset", "", "model and hardware of the replicas (default llama-3.1-8b)")
	f.StringVar(&o.fleet, "fleet", "", "mixed `replicas` instead, COUNT[xPRESET][@SPEED] each: 8xllama-3.1-8b,8xllama-3.1-8b@0.5")
	f.Float64Var(&o.kvFactor, "kv-factor", 1, "scale the KV cache of every replica")
	f.IntVar(&o.blockSize, "block-size", 16, "tokens of a KV block; larger ones are faster to simulate")

	f.IntVar(&o.lbds, "lbds", 1, "number of lbds that share the traffic and know nothing of each other")
	f.DurationVar(&o.poll, "metrics-poll-interval", time.Second, "period in which each lbd polls")
	f.Float64Var(&o.nonStreaming, "non-streaming", 0, "share of the requests that are not streamed, 0 to 1")
	f.DurationVar(&o.admission.TTFT, "admission-max-ttft", 0, "refuse requests whose first token is predicted for later, as lbd does with this setting; only least-cost predicts; 0 = none")
	f.DurationVar(&o.admission.TTFTPerToken, "admission-ttft-per-token", 0, "... plus this for each token of its prompt")
	f.DurationVar(&o.admission.TPOT, "admission-max-tpot", 0, "refuse requests whose further tokens are predicted to take longer than this, each; likewise")
	f.IntVar(&o.seeds, "seeds", 1, "repeat with so many seeds; the table shows the mean")
	f.Float64Var(&o.warmup, "warmup", .1, "share of the requests, the first ones, to leave out of the figures")

	f.StringArrayVar(&o.faults, "fault", nil, "`WHAT`: crash:REPLICA@AT[+FOR] or slow:REPLICA@AT[+FOR]*FACTOR; replicas count from 0; repeatable")
	f.BoolVar(&o.bounds, "bounds", false, "also show limits: requests alone, the work there is, one central queue")

	f.DurationVar(&o.ttft, "ttft", 2*time.Second, "a request is good with a TTFT up to this ...")
	f.DurationVar(&o.ttftPerToken, "ttft-per-token", 0, "... plus this for each token of its prompt")
	f.DurationVar(&o.tpot, "tpot", 50*time.Millisecond, "... and a mean time per further token up to this")

	f.StringVar(&o.file, "json", "", "write the results to this `file`")
	f.StringVar(&o.html, "html", "", "write them to this `file` as one page with plots")
	f.BoolVar(&o.quiet, "quiet", false, "no progress")
}

func (o *replayOptions) run(cmd *cobra.Command) error {
	if err := o.checkGiven(cmd); err != nil {
		return err
	}
	plan, err := o.plan()
	if err != nil {
		return usageError{err}
	}
	page, err := beginFile("html", o.html)
	if err != nil {
		return err
	}
	defer page.discard()
	file, err := beginFile("json", o.file)
	if err != nil {
		return err
	}
	defer file.discard()
	if !o.quiet {
		plan.Config.Progress = progress(cmd.ErrOrStderr())
		plan.Done = func(r *replay.Result, done, total int) {
			fmt.Fprintf(cmd.ErrOrStderr(), "%d/%d %s, %s, seed %d: %d requests in %.0f s of virtual time\n",
				done, total, r.Policy, fleetTitle(strconv.Itoa(r.Replicas)), r.Seed, r.Requests, r.Seconds)
		}
	}
	results, err := replay.Compare(plan)
	if err != nil {
		return err
	}
	if o.dropped > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "%d requests of more than %d tokens left out\n", o.dropped, o.maxLength)
	}
	if len(o.models) > 1 {
		fmt.Fprintf(cmd.ErrOrStderr(), "requests for %d models are replayed as of one, on all replicas: %s; --model takes one of them\n",
			len(o.models), strings.Join(o.models, ", "))
	}
	if err := replay.WriteTable(cmd.OutOrStdout(), results); err != nil {
		return err
	}
	if err := o.showBounds(cmd, plan, results); err != nil {
		return err
	}
	return errors.Join(
		page.keep(func(w io.Writer) error { return o.page(results).WriteHTML(w) }),
		file.keep(func(w io.Writer) error { return writeResults(w, results) }))
}

// progress tells now and then how far a run is; runs going on at a time tell in turn.
func progress(w io.Writer) func(now time.Duration, ended int) {
	var mu sync.Mutex
	told := time.Now()
	return func(now time.Duration, ended int) {
		mu.Lock()
		defer mu.Unlock()
		if time.Since(told) > 2*time.Second {
			told = time.Now()
			fmt.Fprintf(w, "... %d requests have ended after %.0f s of virtual time\n", ended, now.Seconds())
		}
	}
}

func writeResults(w io.Writer, results []*replay.Result) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	return encoder.Encode(map[string]any{"results": results})
}

// checkGiven refuses a typed 0 where to the packages below it stands for a default.
func (o *replayOptions) checkGiven(cmd *cobra.Command) error {
	for flag, zero := range map[string]bool{
		"kv-factor": o.kvFactor == 0, "block-size": o.blockSize == 0, "lbds": o.lbds == 0, "seeds": o.seeds == 0,
		"metrics-poll-interval": o.poll == 0, "requests": o.requests == 0,
	} {
		if zero && cmd.Flags().Changed(flag) {
			return usagef("--%s 0; want more than 0, or no such flag", flag)
		}
	}
	return nil
}

func (o *replayOptions) plan() (replay.Plan, error) {
	p := replay.Plan{
		Config: replay.Config{
			LBDs: o.lbds, Poll: o.poll, NonStreaming: o.nonStreaming, KVFactor: o.kvFactor, BlockSize: o.blockSize, Warmup: o.warmup,
			Admission: o.admission,
			Limits:    replay.Limits{TTFT: o.ttft, TTFTPerToken: o.ttftPerToken, TPOT: o.tpot},
		},
		Seeds: o.seeds, Workload: o.workload,
	}
	if !(o.traceSpeed > 0) || o.traceOffset < 0 || o.traceDuration < 0 {
		return p, fmt.Errorf("--trace-speed %v, --trace-offset %v, --trace-duration %v: want a speed above 0 and no negative time",
			o.traceSpeed, o.traceOffset, o.traceDuration)
	}
	switch a := o.admission; {
	case a.TTFT < 0 || a.TTFTPerToken < 0 || a.TPOT < 0:
		return p, fmt.Errorf("--admission-max-ttft %v, --admission-ttft-per-token %v, --admission-max-tpot %v: want no negative time",
			a.TTFT, a.TTFTPerToken, a.TPOT)
	case a.TTFT == 0 && a.TTFTPerToken > 0:
		return p, fmt.Errorf("--admission-ttft-per-token %v adds to no limit; want --admission-max-ttft as well", a.TTFTPerToken)
	}
	var err error
	if p.Fleets, err = o.fleets(); err != nil {
		return p, err
	}
	if p.Policies, err = policies(o.strategies); err != nil {
		return p, err
	}
	if p.Config.Faults, err = parseFaults(o.faults, p.Fleets); err != nil {
		return p, err
	}
	return p, o.checkTraffic()
}

// parseFaults reads what happens to replicas that every fleet has.
func parseFaults(texts []string, fleets []replay.Fleet) (faults []replay.Fault, err error) {
	smallest := slices.MinFunc(fleets, func(a, b replay.Fleet) int { return a.Size() - b.Size() })
	for _, text := range texts {
		f, err := replay.ParseFault(text)
		if err != nil {
			return nil, fmt.Errorf("--fault: %w", err)
		}
		if err := f.Check(smallest.Size()); err != nil {
			return nil, fmt.Errorf("--fault %q: %w", text, err)
		}
		faults = append(faults, f)
	}
	return faults, nil
}

func (o *replayOptions) fleets() ([]replay.Fleet, error) {
	if o.fleet != "" {
		f, err := replay.ParseFleet(o.fleet)
		return []replay.Fleet{f}, err
	}
	var fleets []replay.Fleet
	for text := range strings.SplitSeq(o.replicas, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n < 1 {
			return nil, fmt.Errorf("--replicas %q: want numbers above 0", o.replicas)
		}
		fleets = append(fleets, replay.Fleet{{Count: n, Preset: o.preset}})
	}
	return fleets, nil
}

// policies finds what --strategies names.
func policies(names string) (all []replay.Policy, err error) {
	for name := range strings.SplitSeq(names, ",") {
		name = strings.TrimSpace(name)
		p, err := policy(name)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

func policy(name string) (replay.Policy, error) {
	if e, ok := strategy.Lookup(name); ok {
		return replay.Shipped(e), nil
	}
	if p, ok := rivals.Lookup(name); ok {
		return p, nil
	}
	known := append(strategyNames(), rivals.Names()...)
	return replay.Policy{}, fmt.Errorf("--strategies: %q is unknown%s; want %s, or one of the rules that lbd replay --help names",
		name, didYouMean("", name, known), strings.Join(strategyNames(), ", "))
}
