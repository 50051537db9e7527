package demo

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"lbd/bench/load"
)

// view draws the live table.
type view struct {
	screen *screen
	envs   []*environment
	ticks  int
}

func newView(s *screen, envs []*environment) *view { return &view{screen: s, envs: envs} }

// everyTicks is how often a picture is drawn where it cannot replace the last.
const everyTicks = 10

func (v *view) show() {
	v.ticks++
	if v.screen.terminal || v.ticks%everyTicks == 0 {
		v.screen.show(v.picture())
	}
}

func (v *view) picture() string {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "\trequests\tin flight\terrors\tTTFT p50\tp99\tITL p50\tp99\ttokens/s\t\n")
	for _, e := range v.envs {
		s := e.runner.Snapshot()
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%s\t%s\t%s\t%s\t%.0f\t\n", e.name, s.Done, s.InFlight, s.Errors,
			ms(s.RecentTTFT.P50), ms(s.RecentTTFT.P99), ms(s.RecentITL.P50), ms(s.RecentITL.P99), s.RecentEvents)
	}
	t.Flush()
	b.WriteString("(latencies in ms over the last ten seconds)\n\n")
	v.replicas(&b)
	return b.String()
}

// replicas shows what each lbd knows of its replicas: own requests in flight and
// what the last poll said.
func (v *view) replicas(b *strings.Builder) {
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "in flight (running/waiting)")
	for _, e := range v.envs {
		fmt.Fprintf(t, "\t%s #1\t#2", e.name)
	}
	fmt.Fprint(t, "\t\n")
	for _, model := range models {
		fmt.Fprint(t, short(model))
		for _, e := range v.envs {
			for i := range replicasPerModel {
				fmt.Fprintf(t, "\t%s", e.load(model, i))
			}
		}
		fmt.Fprint(t, "\t\n")
	}
	t.Flush()
}

func (e *environment) load(model string, i int) string {
	m := e.lbd.Snapshot().Model([]byte(model))
	if m == nil || i >= len(m.Replicas) {
		return "-"
	}
	r := m.Replicas[i]
	text := fmt.Sprint(r.InFlight())
	if p := r.Polled(); p != nil && p.Running.Known && p.Waiting.Known {
		text += fmt.Sprintf(" (%.0f/%.0f)", p.Running.Value, p.Waiting.Value)
	}
	return text
}

func short(model string) string { return model[strings.LastIndexByte(model, '/')+1:] }

func ms(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f", float64(d)/float64(time.Millisecond))
}

func writeIntro(out io.Writer, envs []*environment, o *Options) {
	fmt.Fprintf(out, "%d simulated vLLM %s replicas (H100 timing) per environment, %.0f requests/s to each, the same to both\n\n",
		len(models)*replicasPerModel, o.Profile, o.Rate)
	for _, e := range envs {
		fmt.Fprintf(out, "  %-9s %-14s %s   metrics: %s/metrics\n", e.name, e.strategy, e.url, e.url)
	}
	fmt.Fprintf(out, "\ntry it:\n  curl -N %s/v1/chat/completions -H 'Content-Type: application/json' \\\n"+
		"    -d '{\"model\":\"%s\",\"stream\":true,\"max_tokens\":16,\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}]}'\n",
		envs[len(envs)-1].url, models[0])
	if o.Once {
		fmt.Fprintf(out, "\nmeasuring for %s after %s of warm-up\n\n", o.Duration, warmup)
	} else {
		fmt.Fprint(out, "\nCtrl-C ends it\n\n")
	}
}

func writeComparison(out io.Writer, envs []*environment, results []*load.Results, o *Options) {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "\t")
	for _, e := range envs {
		fmt.Fprintf(t, "%s (%s)\t", e.name, e.strategy)
	}
	fmt.Fprint(t, "difference\t\n")
	for _, row := range []struct {
		name string
		of   func(*load.Results) float64
	}{
		{"requests answered", func(r *load.Results) float64 { return float64(r.OK) }},
		{"requests failed", func(r *load.Results) float64 { return float64(r.Failed) }},
		{"TTFT mean ms", func(r *load.Results) float64 { return r.TTFT.Mean }},
		{"TTFT p50 ms", func(r *load.Results) float64 { return r.TTFT.P50 }},
		{"TTFT p90 ms", func(r *load.Results) float64 { return r.TTFT.P90 }},
		{"TTFT p99 ms", func(r *load.Results) float64 { return r.TTFT.P99 }},
		{"ITL p50 ms", func(r *load.Results) float64 { return r.ITL.P50 }},
		{"ITL p99 ms", func(r *load.Results) float64 { return r.ITL.P99 }},
		{"E2E p50 ms", func(r *load.Results) float64 { return r.E2E.P50 }},
		{"E2E p99 ms", func(r *load.Results) float64 { return r.E2E.P99 }},
		{"output tokens/s", func(r *load.Results) float64 { return r.OutputTokensPerSecond }},
	} {
		a, b := row.of(results[0]), row.of(results[1])
		fmt.Fprintf(t, "%s\t%.0f\t%.0f\t%s\t\n", row.name, a, b, difference(a, b))
	}
	t.Flush()
	fmt.Fprintf(out, "\nseed %d; the same requests at the same times to both. Simulated replicas rank strategies, they measure no GPU.\n", o.Seed)
	for i, e := range envs {
		for _, w := range results[i].Warnings {
			fmt.Fprintf(out, "warning: %s: %s\n", e.name, w)
		}
	}
}

func difference(a, b float64) string {
	if a == 0 {
		return ""
	}
	return fmt.Sprintf("%+.0f %%", 100*(b-a)/a)
}
