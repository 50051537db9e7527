package replay

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// WriteTable writes results for people to read, those of several seeds as their mean; times are milliseconds.
func WriteTable(w io.Writer, results []*Result) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "strategy\treplicas\tTTFT mean\tp50\tp99\tTPOT mean\tp99\tITL p99\tE2E mean\tp99\tgood %\tgood/s\thit %\tbusy %\tbusy CoV\tpreempt\tfailed\trefused %\t")
	for _, r := range Means(results) {
		fmt.Fprintf(t, "%s\t%d\t%.0f\t%.0f\t%.0f\t%.1f\t%.1f\t%.0f\t%.0f\t%.0f\t%.2f\t%.2f\t%.1f\t%.0f\t%.3f\t%d\t%d\t%.1f\t\n",
			r.Policy, r.Replicas, r.TTFT.Mean, r.TTFT.P50, r.TTFT.P99, r.TPOT.Mean, r.TPOT.P99, r.ITL.P99, r.E2E.Mean, r.E2E.P99,
			100*r.Good, r.GoodRate, 100*r.HitRate, 100*r.Busy, r.BusyCoV, r.Preemptions, r.Failed-r.Late+r.Unfinished, 100*r.LateShare)
	}
	return t.Flush()
}

// Means takes the results of one policy and fleet that differ in the seed together.
func Means(results []*Result) (means []Result) {
	for i := 0; i < len(results); {
		j := i + 1
		for j < len(results) && results[j].Policy == results[i].Policy && results[j].Fleet == results[i].Fleet {
			j++
		}
		means = append(means, mean(results[i:j]))
		i = j
	}
	return means
}

func mean(rs []*Result) Result {
	m := *rs[0]
	m.Each = nil
	n := float64(len(rs))
	average := func(get func(*Result) *float64) {
		sum := 0.0
		for _, r := range rs {
			sum += *get(r)
		}
		*get(&m) = sum / n
	}
	for _, f := range fields {
		average(f)
	}
	m.Preemptions, m.Failed, m.Late, m.Unfinished, m.Retries = 0, 0, 0, 0, 0
	for _, r := range rs {
		m.Preemptions += r.Preemptions
		m.Failed += r.Failed
		m.Late += r.Late
		m.Unfinished += r.Unfinished
		m.Retries += r.Retries
	}
	return m
}

// fields are what is averaged over seeds; counts of rare events are added up instead.
var fields = append([]func(*Result) *float64{
	func(r *Result) *float64 { return &r.Good }, func(r *Result) *float64 { return &r.LateShare }, func(r *Result) *float64 { return &r.GoodRate },
	func(r *Result) *float64 { return &r.HitRate }, func(r *Result) *float64 { return &r.OutputRate },
	func(r *Result) *float64 { return &r.Busy }, func(r *Result) *float64 { return &r.BusyCoV },
	func(r *Result) *float64 { return &r.RequestsCoV }, func(r *Result) *float64 { return &r.Normalised },
	func(r *Result) *float64 { return &r.Seconds },
}, spreads()...)

func spreads() (fs []func(*Result) *float64) {
	for _, s := range []func(*Result) *Spread{
		func(r *Result) *Spread { return &r.TTFT }, func(r *Result) *Spread { return &r.ITL },
		func(r *Result) *Spread { return &r.TPOT }, func(r *Result) *Spread { return &r.E2E },
	} {
		for _, f := range []func(*Spread) *float64{
			func(s *Spread) *float64 { return &s.Mean }, func(s *Spread) *float64 { return &s.P50 },
			func(s *Spread) *float64 { return &s.P90 }, func(s *Spread) *float64 { return &s.P95 },
			func(s *Spread) *float64 { return &s.P99 }, func(s *Spread) *float64 { return &s.Max },
		} {
			fs = append(fs, func(r *Result) *float64 { return f(s(r)) })
		}
	}
	return fs
}
