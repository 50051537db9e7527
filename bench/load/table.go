package load

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
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
	if r.Good != nil {
		fmt.Fprintf(b, "goodput: %d of %d within %v   %.2f requests/s\n", *r.Good, r.OK+r.Failed, *r.SLO, *r.GoodputPerSecond)
	}
	if r.Abandoned > 0 {
		fmt.Fprintf(b, "%d later turns of conversations not sent\n", r.Abandoned)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Errors)) {
		fmt.Fprintf(b, "failed: %s %d", name, r.Errors[name])
		if sample := r.Samples[name]; sample != "" {
			fmt.Fprintf(b, "   %s", sample)
		}
		b.WriteByte('\n')
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
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t\n", row.name,
			s.cell(s.Mean, 2), s.cell(s.P50, 2), s.cell(s.P90, 2), s.cell(s.P99, 2), s.cell(s.Max, 2), s.Count)
	}
	t.Flush()
}

// cell is one of the summary's values for a table; a summary of nothing has none.
func (s Summary) cell(ms float64, decimals int) string {
	if s.Count == 0 {
		return "-"
	}
	return strconv.FormatFloat(ms, 'f', decimals, 64)
}

func writeGroups(b *strings.Builder, what string, groups map[string]*Group) {
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "\n%s\tok\tfailed\treq/s\ttok/s\tTTFT p50\tp99\tITL p50\tp99\tE2E p50\tp99\t\n", what)
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		g := groups[name]
		if name == "" {
			name = "(unnamed)"
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%.2f\t%.1f\t%s\t%s\t%s\t%s\t%s\t%s\t\n", name, g.OK, g.Failed,
			g.RequestsPerSecond, g.OutputTokensPerSecond, g.TTFT.cell(g.TTFT.P50, 1), g.TTFT.cell(g.TTFT.P99, 1),
			g.ITL.cell(g.ITL.P50, 2), g.ITL.cell(g.ITL.P99, 2), g.E2E.cell(g.E2E.P50, 1), g.E2E.cell(g.E2E.P99, 1))
	}
	t.Flush()
}
