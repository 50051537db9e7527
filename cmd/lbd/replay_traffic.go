package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"lbd/bench/replay"
	"lbd/bench/trace"
)

// formatAgents are conversations, which are replayed in closed loop; the other formats are arrivals.
const formatAgents = "agents"

var replayFormats = []string{trace.FormatAzure, trace.FormatMooncake, trace.FormatAccessLog, formatAgents}

func (o *replayOptions) checkTraffic() error {
	switch {
	case o.made == "" && o.traceFile == "":
		return fmt.Errorf("no traffic; want --trace FILE --trace-format FORMAT, or --made KIND")
	case o.made != "" && o.traceFile != "":
		return fmt.Errorf("--made %s beside --trace %s; want one of them", o.made, o.traceFile)
	case o.sessions < 1 || o.requests < 0 || o.thinkMax < 0:
		return fmt.Errorf("--sessions %d, --requests %d, --think-max %v: want sessions and nothing below 0", o.sessions, o.requests, o.thinkMax)
	case o.model != "" && (o.made != "" || o.traceFormat == formatAgents):
		return fmt.Errorf("--model %q: want a trace that names models, such as an access log", o.model)
	case o.bounds && o.traceFormat == formatAgents:
		return fmt.Errorf("--bounds with --trace-format agents: in closed loop what arrives depends on what was served")
	case o.made != "":
		_, err := o.makeUp(1)
		return err
	case !slices.Contains(replayFormats, o.traceFormat):
		return fmt.Errorf("--trace-format %q; want one of %s", o.traceFormat, strings.Join(replayFormats, ", "))
	}
	return nil
}

// workload makes the traffic of a seed.
func (o *replayOptions) workload(seed uint64) (*replay.Workload, error) {
	if o.made != "" {
		return o.makeUp(seed)
	}
	if o.traceFormat == formatAgents {
		return o.conversations(seed)
	}
	t, err := trace.Open(o.traceFile, o.traceFormat, seed)
	if err != nil {
		return nil, fmt.Errorf("--trace: %w", err)
	}
	if o.model != "" {
		t = t.OfModel(o.model)
	}
	t = t.Window(o.traceOffset, o.traceDuration).SpeedUp(o.traceSpeed)
	o.dropped = 0
	if o.maxLength > 0 {
		t = t.MaxTokens(o.maxLength, func(trace.Arrival) { o.dropped++ })
	}
	if o.requests > 0 {
		t = t.First(o.requests)
	}
	all, err := t.Collect()
	if err != nil {
		return nil, err
	}
	if len(all) == 0 && o.model != "" {
		return nil, fmt.Errorf("--model %q: the trace has no request for it", o.model)
	}
	o.models = modelsOf(all)
	return replay.Open(o.traceFormat, trace.Of(t.BlockTokens, all...)), nil
}

// modelsOf returns the names in a trace; those of Azure and Mooncake have none.
func modelsOf(all []trace.Arrival) []string {
	names := make(map[string]bool)
	for i := range all {
		if all[i].Model != "" {
			names[all[i].Model] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

func (o *replayOptions) conversations(seed uint64) (*replay.Workload, error) {
	all, err := trace.OpenSessions(o.traceFile)
	if err != nil {
		return nil, fmt.Errorf("--trace: %w", err)
	}
	o.dropped = 0
	for i := range all {
		if o.maxLength > 0 {
			o.dropped += all[i].MaxTokens(o.maxLength)
		}
	}
	s := replay.Sessions{List: all, Concurrent: o.sessions, Turns: o.requests, ThinkMax: o.thinkMax, Seed: seed}
	return s.Workload(formatAgents), nil
}

// makeUp describes traffic as the comparison of strategies uses it (bench/replay/placement).
func (o *replayOptions) makeUp(seed uint64) (*replay.Workload, error) {
	s := trace.Synthetic{Rate: o.rate, Requests: cmp.Or(o.requests, 5000), Seed: seed}
	switch o.made {
	case "poisson":
		s.Prompt = trace.Lengths{Min: 1, Max: 16000, Median: 700, Sigma: .9}
		s.Output = trace.Lengths{Min: 1, Max: 2000, Median: 200, Sigma: .7}
	case "bursty":
		s.CV = 13
		s.Prompt = trace.Lengths{Min: 50, Max: 16000, Median: 1500, Sigma: 1}
		s.Output = trace.Lengths{Min: 1, Max: 500, Median: 25, Sigma: .8}
	case "shared-prefix":
		s.Tenants, s.TenantTokens, s.TenantBlock = 150, 6016, 64
		s.Prompt = trace.Lengths{Min: 100, Max: 2400}
		s.Output = trace.Lengths{Min: 1, Max: 2000, Median: 200, Sigma: .7}
	default:
		return nil, fmt.Errorf("--made %q; want poisson, bursty or shared-prefix", o.made)
	}
	t, err := s.Trace()
	if err != nil {
		return nil, fmt.Errorf("--made %s: %w", o.made, err)
	}
	return replay.Open(o.made, t), nil
}

// showBounds adds the bounds of the first seed to the results, for each fleet, and shows them.
func (o *replayOptions) showBounds(cmd *cobra.Command, p replay.Plan, results []*replay.Result) error {
	if !o.bounds {
		return nil
	}
	w, err := p.Workload(1)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\nlimits\treplicas\tTTFT mean\tp50\tp99\tE2E mean\tp99\tgood %\thit %\t")
	for _, f := range p.Fleets {
		c := p.Config
		c.Fleet, c.Seed = f, 1
		b, err := replay.BoundsOf(c, w, true)
		if err != nil {
			return err
		}
		row := func(name string, ttft, e2e replay.Spread, more string) {
			fmt.Fprintf(t, "%s\t%d\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%s\t\n", name, f.Size(), ttft.Mean, ttft.P50, ttft.P99, e2e.Mean, e2e.P99, more)
		}
		row("alone, nothing cached", b.Isolated.TTFT, b.Isolated.E2E, "\t")
		row("alone, all prefixes cached", b.IsolatedCached.TTFT, b.IsolatedCached.E2E, fmt.Sprintf("\t%.1f", 100*b.ReuseRate))
		row("central queue, shared cache", b.Central.TTFT, b.Central.E2E, fmt.Sprintf("%.2f\t%.1f", 100*b.Central.Good, 100*b.Central.HitRate))
		fmt.Fprintf(t, "work: %.0f %% of the fleet's time at least\t%d\t\t\t\t\t\t\t\t\n", 100*b.Work, f.Size())
		for _, r := range results {
			if r.Fleet == f.String() {
				r.Bounds = b
			}
		}
	}
	return t.Flush()
}
