package report

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"lbd/bench/load"
)

// lbdFile is what is read of a results file of `lbd bench`, as package load
// documents it. Fields that older ones lack are optional.
type lbdFile struct {
	Schema      string            `json:"schema"`
	Tool        string            `json:"tool"`
	Workload    map[string]string `json:"workload"`
	Target      string            `json:"target"`
	API         string            `json:"api"`
	Mode        string            `json:"mode"`
	Concurrency int               `json:"concurrency"`
	Seed        uint64            `json:"seed"`
	Started     time.Time         `json:"started"`
	Seconds     float64           `json:"seconds"`
	Interrupted bool              `json:"interrupted"`
	SLO         *struct {
		TTFT float64 `json:"ttft_ms"`
		TPOT float64 `json:"tpot_ms"`
		E2E  float64 `json:"e2e_ms"`
	} `json:"slo"`
	Lateness lbdSummary `json:"lateness_ms"`
	lbdGroup
	Models   map[string]*lbdGroup `json:"models"`
	Timeline *struct {
		Step     float64 `json:"step_ms"`
		Replicas map[string]*struct {
			InFlight []float64 `json:"in_flight"`
		} `json:"replicas"`
	} `json:"timeline"`
	Warnings []string    `json:"warnings"`
	Records  []lbdRecord `json:"records"`
}

type lbdGroup struct {
	OK              int          `json:"ok"`
	Failed          int          `json:"failed"`
	PromptTokens    float64      `json:"prompt_tokens"`
	OutputTokens    float64      `json:"output_tokens"`
	PerSecond       float64      `json:"requests_per_second"`
	TokensPerSecond float64      `json:"output_tokens_per_second"`
	Goodput         *float64     `json:"goodput_per_second"`
	TTFT            lbdSummary   `json:"ttft_ms"`
	ITL             lbdSummary   `json:"itl_ms"`
	ITLCounts       [][2]float64 `json:"itl_counts"`
	TPOT            lbdSummary   `json:"tpot_ms"`
	E2E             lbdSummary   `json:"e2e_ms"`
}

type lbdSummary struct {
	Count int     `json:"count"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
}

type lbdRecord struct {
	Index        int     `json:"index"`
	Turn         int     `json:"turn"`
	Model        string  `json:"model"`
	Warmup       bool    `json:"warmup"`
	Scheduled    float64 `json:"scheduled_ms"`
	Sent         float64 `json:"sent_ms"`
	FirstContent float64 `json:"first_content_ms"`
	LastContent  float64 `json:"last_content_ms"`
	End          float64 `json:"end_ms"`
	AskedPrompt  int     `json:"asked_prompt_tokens"`
	AskedOutput  int     `json:"asked_output_tokens"`
	Events       int     `json:"content_events"`
	PromptTokens int     `json:"prompt_tokens"`
	OutputTokens int     `json:"output_tokens"`
	Replica      string  `json:"replica"`
	Cause        string  `json:"cause"`
}

// readLbd reads a results file of `lbd bench`.
func readLbd(b []byte) (*Run, error) {
	var f lbdFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("not a results file of lbd bench: %w", err)
	}
	if f.Schema != load.Schema {
		return nil, fmt.Errorf("schema %q; want %q", f.Schema, load.Schema)
	}
	r := &Run{
		Tool: "lbd bench", Target: f.Target, Started: f.Started, Seconds: f.Seconds,
		Requests: f.requests(), Total: f.lbdGroup.totals(), Models: map[string]Totals{},
		Fingerprint: f.fingerprint(), Timeline: f.timeline(), Limits: f.limits(),
	}
	for name, g := range f.Models {
		if g != nil {
			r.Models[name] = g.totals()
		}
	}
	r.Workload = f.workload(r.Requests)
	r.Notes = f.Warnings
	if f.Interrupted {
		r.Faults = append(r.Faults, "interrupted")
	}
	if late := time.Duration(f.Lateness.P99 * float64(time.Millisecond)); late > load.MaxLateness {
		r.Faults = append(r.Faults, fmt.Sprintf("generator late: %.1f ms at p99; want at most %v", f.Lateness.P99, load.MaxLateness))
	}
	if len(f.Records) == 0 {
		r.Notes = append(r.Notes, "no records: intervals come from the repeats alone")
	}
	return r, nil
}

func (f *lbdFile) requests() []Request {
	var all []Request
	for i := range f.Records {
		rec := &f.Records[i]
		if rec.Warmup || rec.Cause == load.CauseCancelled {
			continue
		}
		q := Request{
			Model: rec.Model, Replica: rec.Replica, Sent: rec.Sent / 1000, End: rec.End / 1000,
			TTFT: math.NaN(), TPOT: math.NaN(), E2E: rec.End - rec.Scheduled,
			Prompt: rec.PromptTokens, Output: rec.OutputTokens, Failed: rec.Cause != "",
		}
		if rec.Events > 0 {
			q.TTFT = rec.FirstContent - rec.Scheduled
			if rec.OutputTokens > 1 {
				q.TPOT = (rec.LastContent - rec.FirstContent) / float64(rec.OutputTokens-1)
			}
		}
		all = append(all, q)
	}
	return all
}

func (g *lbdGroup) totals() Totals {
	t := Totals{
		OK: g.OK, Failed: g.Failed, PromptTokens: g.PromptTokens, OutputTokens: g.OutputTokens,
		PerSecond: g.PerSecond, TokensPerSecond: g.TokensPerSecond, Goodput: math.NaN(),
		Summaries: map[Quantity]Summary{
			TTFT: g.TTFT.summary(), ITL: g.ITL.summary(), TPOT: g.TPOT.summary(), E2E: g.E2E.summary(),
		},
	}
	if g.Goodput != nil {
		t.Goodput = *g.Goodput
	}
	if itl := t.Summaries[ITL]; len(g.ITLCounts) > 0 && itl.Count > 0 {
		maps.Copy(itl.Quantiles, countedQuantiles(g.ITLCounts, itl.Quantiles))
	}
	return t
}

func (s lbdSummary) summary() Summary {
	return Summary{s.Count, s.Mean, map[float64]float64{.5: s.P50, .9: s.P90, .99: s.P99}}
}

// countedQuantiles reads the percentiles of a histogram, those in known excepted.
func countedQuantiles(counts [][2]float64, known map[float64]float64) map[float64]float64 {
	total := 0.0
	for _, c := range counts {
		total += c[1]
	}
	found := map[float64]float64{}
	for _, q := range append(slices.Clone(summaryQuantiles), curve...) {
		if _, ok := known[q]; ok || total <= 0 {
			continue
		}
		seen := 0.0
		for _, c := range counts {
			if seen += c[1]; seen >= q*total {
				found[q] = c[0]
				break
			}
		}
	}
	return found
}

// fingerprint is a hash of what was sent; requests that a closed loop had no time
// for do not count, so that it is the workload's and not the run's.
func (f *lbdFile) fingerprint() string {
	if len(f.Records) == 0 {
		return ""
	}
	h := sha256.New()
	fmt.Fprintln(h, f.Seed, f.API, f.Mode, f.Concurrency)
	for i := range f.Records {
		rec := &f.Records[i]
		at := 0.0
		if f.Mode == "open" && rec.Turn == 0 {
			at = math.Round(rec.Scheduled)
		}
		fmt.Fprintln(h, rec.Index, rec.Turn, rec.Model, rec.AskedPrompt, rec.AskedOutput, at, rec.Warmup)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

var rateOf = regexp.MustCompile(`^\w+ ([0-9]+(?:\.[0-9]+)?)/s$`)

// workload is what the file says was asked for; where it does not, what was sent.
func (f *lbdFile) workload(requests []Request) Workload {
	w := Workload{Load: Load{"concurrency", float64(f.Concurrency)}}
	if f.Mode == "open" {
		w.Load = Load{Kind: "rate"}
		for _, m := range sent(requests, true) {
			if m.Name == "requests per second" {
				w.Load.Value = m.Value
			}
		}
		// "poisson 10/s"; a ramp has a rate only on average.
		if m := rateOf.FindStringSubmatch(f.Workload["arrival"]); m != nil {
			w.Load.Value, _ = strconv.ParseFloat(m[1], 64) // the pattern is a number
		}
	}
	all := map[string]string{"tool": "lbd bench", "api": f.API, "loop": f.Mode, "models": strings.Join(slices.Sorted(maps.Keys(f.Models)), ", ")}
	if f.Concurrency > 0 {
		all["concurrency"] = fmt.Sprint(f.Concurrency)
	}
	maps.Copy(all, f.Workload)
	w.Fields = fields(all)
	if len(f.Workload) == 0 {
		w.Measured = sent(requests, f.Mode == "open")
	}
	return w
}

func (f *lbdFile) limits() string {
	if f.SLO == nil {
		return ""
	}
	var parts []string
	for _, l := range []struct {
		name string
		ms   float64
	}{{"TTFT", f.SLO.TTFT}, {"TPOT", f.SLO.TPOT}, {"E2E", f.SLO.E2E}} {
		if l.ms > 0 {
			parts = append(parts, fmt.Sprintf("%s at most %g ms", l.name, l.ms))
		}
	}
	return strings.Join(parts, ", ")
}

func (f *lbdFile) timeline() *Timeline {
	if f.Timeline == nil || f.Timeline.Step <= 0 {
		return nil
	}
	t := &Timeline{Step: f.Timeline.Step / 1000, InFlight: map[string][]float64{}}
	for name, s := range f.Timeline.Replicas {
		if s != nil && name != "" {
			t.InFlight[name] = s.InFlight
		}
	}
	if len(t.InFlight) == 0 {
		return nil
	}
	return t
}
