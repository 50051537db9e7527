package report

import (
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"lbd/bench/report/page"
)

// Worker is the result file of one of several workers that loaded one target
// together.
type Worker struct {
	File string
	Tool string
	// Start and End are the measurement window; zero when the file does not tell.
	Start, End time.Time
	// Figures of this worker, as its tool counts them.
	Requests                                 float64
	PerSecond, OutputPerSecond, AllPerSecond float64
	OutputTokens                             float64
	// Records are the single requests; empty when the file has none. Summaries are
	// the tool's own figures.
	Records   []Request
	Summaries map[Quantity]Summary
}

// Aggregate is what several workers did together.
type Aggregate struct {
	Workers                                  []Worker
	Requests                                 float64
	PerSecond, OutputPerSecond, AllPerSecond float64
	// Check is output tokens over the whole time from the first start to the last
	// end; 0 when the files do not tell.
	Check float64
	// Summaries are over the merged records of all workers.
	Summaries map[Quantity]Summary
	// Merged is false for quantities whose percentiles are weighted means.
	Merged   map[Quantity]bool
	Warnings []string
}

// ReadWorker reads one worker's file of guidellm or vllm bench serve. With total,
// guidellm's figures include requests that failed or were cut off.
func ReadWorker(path string, total bool) (Worker, error) {
	b, err := readFile(path)
	if err != nil {
		return Worker{}, err
	}
	w, err := parseWorker(b, total)
	if err != nil {
		return Worker{}, fmt.Errorf("%s: %w", path, err)
	}
	w.File = path
	return w, nil
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, fmt.Errorf("%s is a directory; want a result file", path)
	case info.Size() == 0:
		return nil, fmt.Errorf("%s is empty; want a result file of guidellm or vllm bench serve", path)
	case info.Size() > MaxFile:
		return nil, fmt.Errorf("%s is longer than 1 GiB", path)
	}
	return os.ReadFile(path)
}

func parseWorker(b []byte, total bool) (Worker, error) {
	switch detect(".json", b) {
	case guidellmResults:
		return guideWorker(b, total)
	case vllmResults:
		return vllmWorker(b)
	}
	if len(strings.TrimSpace(string(b))) == 0 {
		return Worker{}, errors.New("empty")
	}
	return Worker{}, errors.New("no result of guidellm or vllm bench serve")
}

func guideWorker(b []byte, total bool) (Worker, error) {
	f, err := parseGuide(b)
	if err != nil {
		return Worker{}, err
	}
	if len(f.Benchmarks) > 1 {
		return Worker{}, fmt.Errorf("%d benchmarks; want one, not a sweep", len(f.Benchmarks))
	}
	g := &f.Benchmarks[0]
	of := func(name string) (*guideSummary, error) {
		s := g.Metrics[name].Successful
		if total {
			s = g.Metrics[name].Total
		}
		if s == nil {
			return nil, fmt.Errorf("no metric %q", name)
		}
		return s, nil
	}
	w := Worker{Tool: f.tool(), Start: seconds(g.Start), End: seconds(g.End), Records: answered(g.requests()), Summaries: g.totals(0).Summaries}
	var errs [5]error
	var rate, output, all, tokens, latency *guideSummary
	rate, errs[0] = of("requests_per_second")
	output, errs[1] = of("output_tokens_per_second")
	all, errs[2] = of("tokens_per_second")
	tokens, errs[3] = of("output_token_count")
	latency, errs[4] = of("request_latency")
	if err := errors.Join(errs[:]...); err != nil {
		return Worker{}, err
	}
	w.PerSecond, w.OutputPerSecond, w.AllPerSecond = rate.Mean, output.Mean, all.Mean
	w.OutputTokens, w.Requests = tokens.Sum, latency.Count
	return w, nil
}

func vllmWorker(b []byte) (Worker, error) {
	results, err := parseVllm(b)
	if err != nil {
		return Worker{}, err
	}
	if len(results) > 1 {
		return Worker{}, fmt.Errorf("%d results; want one", len(results))
	}
	v := results[0]
	w := Worker{
		Tool: "vllm bench serve", Requests: float64(v.Completed), PerSecond: v.RequestThroughput, OutputPerSecond: v.OutputThroughput,
		AllPerSecond: v.TotalThroughput, OutputTokens: v.OutputTokens, Records: answered(v.requests()), Summaries: v.totals().Summaries,
	}
	if end, ok := v.end(); ok {
		w.Start, w.End = end.Add(-time.Duration(v.Duration*float64(time.Second))), end
	}
	return w, nil
}

func answered(requests []Request) []Request {
	return slices.DeleteFunc(requests, func(r Request) bool { return r.Failed })
}

// Add adds up workers by their rates. That is right only while all of them ran,
// so it warns when they did not run together, and when the rates contradict the
// tokens over the whole time by more than 5 %.
func Add(workers []Worker) *Aggregate {
	a := &Aggregate{Workers: workers, Summaries: map[Quantity]Summary{}, Merged: map[Quantity]bool{}}
	tokens := 0.0
	for _, w := range workers {
		a.Requests += w.Requests
		a.PerSecond += w.PerSecond
		a.OutputPerSecond += w.OutputPerSecond
		a.AllPerSecond += w.AllPerSecond
		tokens += w.OutputTokens
		if w.Tool != workers[0].Tool {
			a.warn("the workers are not of one tool: %s is of %s, %s of %s", workers[0].File, workers[0].Tool, w.File, w.Tool)
		}
	}
	a.checkTime(tokens)
	for _, q := range []Quantity{TTFT, ITL, TPOT, E2E} {
		a.merge(q)
	}
	return a
}

func (a *Aggregate) warn(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(a.Warnings, text) {
		a.Warnings = append(a.Warnings, text)
	}
}

// minOverlap is the part of the whole time in which all workers must have run for
// the sum of their rates to mean something.
const minOverlap = .9

// checkTolerance is how far the sum of rates may be from tokens over time.
const checkTolerance = .05

func (a *Aggregate) checkTime(tokens float64) {
	var first, last, allBegun, oneEnded time.Time
	for i, w := range a.Workers {
		if w.Start.IsZero() || w.End.IsZero() {
			a.warn("%s does not tell when it was measured: whether the workers ran together is not known", w.File)
			return
		}
		if i == 0 {
			first, allBegun, oneEnded, last = w.Start, w.Start, w.End, w.End
		}
		first, allBegun = earlier(first, w.Start), later(allBegun, w.Start)
		oneEnded, last = earlier(oneEnded, w.End), later(last, w.End)
	}
	whole, together := last.Sub(first).Seconds(), max(0, oneEnded.Sub(allBegun).Seconds())
	if whole <= 0 {
		return
	}
	if together < minOverlap*whole {
		a.warn("all workers ran together for %.1f of %.1f s (%.0f %%): the sums are of rates that were not reached at the same time",
			together, whole, 100*together/whole)
	}
	a.Check = tokens / whole
	if a.OutputPerSecond > 0 && math.Abs(a.Check-a.OutputPerSecond) > checkTolerance*a.OutputPerSecond {
		a.warn("the workers' rates add up to %s output tokens/s, their tokens over the whole time are %s/s (%+.1f %%)",
			page.Number(a.OutputPerSecond), page.Number(a.Check), 100*(a.Check/a.OutputPerSecond-1))
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// merge describes a quantity over the records of all workers. Where a worker has
// none, its percentiles are weighted by their counts, which is not the percentile
// of the whole; the warning says so.
func (a *Aggregate) merge(q Quantity) {
	var all []float64
	count, merged := 0, true
	for _, w := range a.Workers {
		vs := numbers(values(w.Records, q))
		if q == ITL {
			vs = gaps(w.Records)
		}
		if n := w.Summaries[q].Count; n > 0 && len(vs) == 0 {
			merged = false
		}
		count += w.Summaries[q].Count
		all = append(all, vs...)
	}
	switch {
	case merged && len(all) > 0:
		a.Summaries[q], a.Merged[q] = summarize(all), true
	case count > 0:
		a.Summaries[q] = a.weighted(q, count)
		a.warn("records are missing: the percentiles marked ≈ are means of the workers' percentiles, weighted by requests, and not those of all requests")
	}
}

func (a *Aggregate) weighted(q Quantity, count int) Summary {
	s := Summary{Count: count, Quantiles: map[float64]float64{}}
	missing := map[float64]bool{}
	for _, w := range a.Workers {
		own := w.Summaries[q]
		if own.Count == 0 {
			continue
		}
		part := float64(own.Count) / float64(count)
		s.Mean += part * own.Mean
		for _, at := range summaryQuantiles {
			if v, ok := own.Quantiles[at]; ok {
				s.Quantiles[at] += part * v
			} else {
				missing[at] = true
			}
		}
	}
	for at := range missing {
		delete(s.Quantiles, at)
	}
	return s
}

// WriteText writes the sums, with details a line for each worker.
func (a *Aggregate) WriteText(w io.Writer, details bool) error {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "\trequests\trequests/s\toutput tokens/s\ttokens/s\t\n")
	if details {
		for _, k := range a.Workers {
			fmt.Fprintf(t, "%s\t%.0f\t%.2f\t%.1f\t%.1f\t\n", k.File, k.Requests, k.PerSecond, k.OutputPerSecond, k.AllPerSecond)
		}
	}
	fmt.Fprintf(t, "%s\t%.0f\t%.2f\t%.1f\t%.1f\t\n", plural(len(a.Workers), "worker"), a.Requests, a.PerSecond, a.OutputPerSecond, a.AllPerSecond)
	t.Flush()
	if details && a.Check > 0 {
		fmt.Fprintf(&b, "output tokens over the whole time: %.1f/s\n", a.Check)
	}
	b.WriteByte('\n')
	t = tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "ms\tmean\tp50\tp90\tp95\tp99\tn\t\n")
	for _, q := range []Quantity{TTFT, ITL, TPOT, E2E} {
		a.writeQuantity(t, q)
	}
	t.Flush()
	for _, warning := range a.Warnings {
		fmt.Fprintf(&b, "\nwarning: %s", warning)
	}
	if len(a.Warnings) > 0 {
		b.WriteByte('\n')
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (a *Aggregate) writeQuantity(t io.Writer, q Quantity) {
	s, ok := a.Summaries[q]
	if !ok || s.Count == 0 {
		return
	}
	about := ""
	if !a.Merged[q] {
		about = "≈"
	}
	fmt.Fprintf(t, "%s\t%.2f\t", q, s.Mean)
	for _, at := range []float64{.5, .9, .95, .99} {
		if v, ok := s.Quantiles[at]; ok {
			fmt.Fprintf(t, "%s%.2f\t", about, v)
		} else {
			fmt.Fprint(t, "–\t")
		}
	}
	fmt.Fprintf(t, "%d\t\n", s.Count)
}
