package load

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// WriteTable writes the results for people to read; times are milliseconds.
func (r *Results) WriteTable(w io.Writer) error {
	b := &strings.Builder{}
	mode := "open loop"
	if r.Mode == "closed" {
		mode = fmt.Sprintf("closed loop of %d", r.Concurrency)
	}
	fmt.Fprintf(b, "%s   %s, %s, %.1f s, seed %d, at most %d in flight\n", r.Target, r.API, mode, r.Seconds, r.Seed, r.PeakInFlight)
	fmt.Fprintf(b, "%d ok, %d failed (%.2f %%), %d cancelled, %d warm-up   %.2f requests/s   %.1f output tokens/s\n",
		r.OK, r.Failed, 100*r.ErrorRate(), r.Cancelled, r.WarmupRequests, r.RequestsPerSecond, r.OutputTokensPerSecond)
	for _, name := range slices.Sorted(maps.Keys(r.Errors)) {
		fmt.Fprintf(b, "failed: %s %d\n", name, r.Errors[name])
	}
	b.WriteByte('\n')
	r.writeLatencies(b)
	writeGroups(b, "model", r.Models)
	writeGroups(b, "replica", r.Replicas)
	for _, warning := range r.Warnings {
		fmt.Fprintf(b, "\nwarning: %s", warning)
	}
	if len(r.Warnings) > 0 {
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Results) writeLatencies(b *strings.Builder) {
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "ms\tmean\tp50\tp90\tp99\tmax\tn\t")
	for _, row := range []struct {
		name string
		s    Summary
	}{
		{"TTFT", r.TTFT}, {"TTFT from send", r.TTFTFromSend}, {"ITL", r.ITL}, {"TPOT", r.TPOT},
		{"E2E", r.E2E}, {"E2E from send", r.E2EFromSend}, {"generator lateness", r.Lateness},
	} {
		s := row.s
		fmt.Fprintf(t, "%s\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%d\t\n", row.name, s.Mean, s.P50, s.P90, s.P99, s.Max, s.Count)
	}
	t.Flush()
}

func writeGroups(b *strings.Builder, what string, groups map[string]*Group) {
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "\n%s\tok\tfailed\treq/s\ttok/s\tTTFT p50\tp99\tITL p50\tp99\tE2E p50\tp99\t\n", what)
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		g := groups[name]
		if name == "" {
			name = "(unnamed)"
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%.2f\t%.1f\t%.1f\t%.1f\t%.2f\t%.2f\t%.1f\t%.1f\t\n", name, g.OK, g.Failed,
			g.RequestsPerSecond, g.OutputTokensPerSecond, g.TTFT.P50, g.TTFT.P99, g.ITL.P50, g.ITL.P99, g.E2E.P50, g.E2E.P99)
	}
	t.Flush()
}
