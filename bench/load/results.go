package load

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"
)

// Schema is the value of Results.Schema; it changes when a reader of older files
// would misread newer ones.
const Schema = "lbd-bench/1"

// MaxLateness is the generator's lateness at p99 above which a measurement is not
// to be trusted: the requests were not sent when the plan said.
const MaxLateness = 50 * time.Millisecond

// maxReplicas bounds the breakdown, against a server that names a new replica in
// each response. Those beyond it are "other".
const maxReplicas = 256

// Summary describes a set of latencies in milliseconds; all 0 when Count is.
type Summary struct {
	Count int     `json:"count"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
}

// Group is the figures of a set of requests. Latencies are those of requests
// that succeeded, and TTFT, ITL and TPOT those of streams among them.
type Group struct {
	Requests  int            `json:"requests"` // OK + Failed + Cancelled
	OK        int            `json:"ok"`
	Failed    int            `json:"failed"`
	Cancelled int            `json:"cancelled"`
	Errors    map[string]int `json:"errors"` // "cause" or "cause code"

	// Tokens as the replicas' usage counts them, of requests that succeeded.
	PromptTokens int64 `json:"prompt_tokens"`
	OutputTokens int64 `json:"output_tokens"`
	CachedTokens int64 `json:"cached_tokens"`
	// Per second of Results.Seconds.
	// Good counts the successful requests within every limit of Results.SLO,
	// GoodputPerSecond is their rate; without limits both are left out.
	Good             *int     `json:"good,omitempty"`
	GoodputPerSecond *float64 `json:"goodput_per_second,omitempty"`

	RequestsPerSecond     float64 `json:"requests_per_second"`
	OutputTokensPerSecond float64 `json:"output_tokens_per_second"`

	TTFT         Summary `json:"ttft_ms"`           // from the scheduled time
	TTFTFromSend Summary `json:"ttft_from_send_ms"` // from the actual send
	ITL          Summary `json:"itl_ms"`            // over all gaps; from a histogram, see doc.go
	// ITLCounts is that histogram: pairs of milliseconds, the middle of a bucket,
	// and how many gaps fell into it, in rising order.
	ITLCounts   [][2]float64 `json:"itl_counts,omitempty"`
	TPOT        Summary      `json:"tpot_ms"`
	E2E         Summary      `json:"e2e_ms"`
	E2EFromSend Summary      `json:"e2e_from_send_ms"`
}

// Results are the figures of a run.
type Results struct {
	Schema string `json:"schema"`
	// Tool is the client with its version, Environment the name of what was
	// measured (baseline, managed, or made from the target), both as the caller of
	// Run has filled them in.
	Tool        string `json:"tool,omitempty"`
	Environment string `json:"env,omitempty"`
	// Workload describes what was asked for, as the caller has it. Two runs can be
	// compared when their maps are equal; target, seed and repeat are not in it.
	Workload    map[string]string `json:"workload,omitempty"`
	Target      string            `json:"target"`
	API         API               `json:"api"`
	Mode        string            `json:"mode"` // "open" or "closed"
	Concurrency int               `json:"concurrency,omitempty"`
	Seed        uint64            `json:"seed"`
	Started     time.Time         `json:"started"`
	// Seconds is from the first scheduled time to the end of the last request,
	// warm-up left out.
	Seconds     float64 `json:"seconds"`
	Interrupted bool    `json:"interrupted"`
	// SLO is the limits of Good; nil where none were given.
	SLO *SLO `json:"slo,omitempty"`
	// WarmupRequests is the number of requests left out.
	WarmupRequests int `json:"warmup_requests"`
	PeakInFlight   int `json:"peak_in_flight"`
	// EventClock says who took the times of arrival: "kernel" (its receive stamps) or
	// "client" (after the read).
	EventClock string `json:"event_clock"`
	// Lateness is the generator's own; of all requests, whatever became of them.
	Lateness Summary `json:"lateness_ms"`
	// WrongLength counts answers whose output length is not the one asked for,
	// NoUsage those without a usage count; their tokens are not in any figure.
	WrongLength int `json:"wrong_length"`
	NoUsage     int `json:"no_usage"`
	// Abandoned counts turns that were not sent because the one before had failed or
	// the time was over.
	Abandoned int `json:"abandoned_turns,omitempty"`
	// NotKept counts requests whose Record.Kept went beyond Options.KeepBytes.
	NotKept int `json:"-"`

	Group
	Models   map[string]*Group `json:"models"`
	Replicas map[string]*Group `json:"replicas"` // by X-Lbd-Replica; "" where none was sent

	// Samples has the words of the first failure of each kind in Errors.
	Samples map[string]string `json:"samples"`
	// Timeline is the load of each replica over the run.
	Timeline *Timeline `json:"timeline,omitempty"`
	Warnings []string  `json:"warnings,omitempty"`
	Records  []Record  `json:"records,omitempty"`
}

// Check tells why the measurement should not be trusted, nil if it can be: it was
// interrupted, nothing succeeded, a larger part than maxErrorRate (0.01 is 1 %)
// failed, or the generator was late.
func (r *Results) Check(maxErrorRate float64) error {
	var why []error
	if r.Interrupted {
		why = append(why, errors.New("interrupted"))
	}
	if r.OK == 0 {
		why = append(why, errors.New("no request succeeded"))
	}
	if rate := r.ErrorRate(); rate > maxErrorRate {
		why = append(why, fmt.Errorf("%d of %d requests failed (%.2f %%); want at most %.2f %%",
			r.Failed, r.OK+r.Failed, 100*rate, 100*maxErrorRate))
	}
	if r.Lateness.P99 > millis(MaxLateness) {
		why = append(why, r.latenessError())
	}
	return errors.Join(why...)
}

func (r *Results) latenessError() error {
	return fmt.Errorf("generator late: %.1f ms at p99; want at most %v", r.Lateness.P99, MaxLateness)
}

// ErrorRate is the failed part of the requests that were not cancelled.
func (g *Group) ErrorRate() float64 {
	if g.OK+g.Failed == 0 {
		return 0
	}
	return float64(g.Failed) / float64(g.OK+g.Failed)
}

// recorder collects the records and the gaps of each group.
type recorder struct {
	mu        sync.Mutex // guards all; onRecord is called under it
	onRecord  func(Record)
	records   []Record
	abandoned int
	room      int64 // bytes still to be kept
	notKept   int
	itl       histogram
	models    map[string]*histogram
	replicas  map[string]*histogram
}

func newRecorder(o *Options) *recorder {
	return &recorder{onRecord: o.OnRecord, room: o.KeepBytes, models: map[string]*histogram{}, replicas: map[string]*histogram{}}
}

func (r *recorder) abandon(turns int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.abandoned += turns
}

// keep lets the record have what was kept, as long as there is room.
func (r *recorder) keep(x *exchange) {
	if x.rec.Kept == nil {
		return
	}
	if x.rec.Warmup {
		x.rec.Kept = nil
		return
	}
	x.hand()
	if r.room -= x.rec.Kept.size(); r.room < 0 {
		x.rec.Kept = nil
		r.notKept++
	}
}

func (r *recorder) add(x *exchange) {
	rec, gaps := &x.rec, x.gaps
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keep(x)
	if _, known := r.replicas[rec.Replica]; !known && len(r.replicas) >= maxReplicas {
		rec.Replica = "other"
	}
	r.records = append(r.records, *rec)
	if rec.OK() && !rec.Warmup {
		model, replica := histogramOf(r.models, rec.Model), histogramOf(r.replicas, rec.Replica)
		for _, gap := range gaps {
			r.itl.observe(gap)
			model.observe(gap)
			replica.observe(gap)
		}
	}
	if r.onRecord != nil {
		r.onRecord(*rec)
	}
}

func histogramOf(m map[string]*histogram, key string) *histogram {
	h := m[key]
	if h == nil {
		h = new(histogram)
		m[key] = h
	}
	return h
}

// results adds up the records. All requests have ended.
func (r *Runner) results() *Results {
	rs := r.recorder
	slices.SortFunc(rs.records, func(a, b Record) int {
		return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(a.Turn, b.Turn))
	})
	res := &Results{
		Schema:       Schema,
		Target:       r.target.base,
		API:          r.o.API,
		Mode:         "open",
		Concurrency:  r.o.Concurrency,
		Seed:         r.o.Seed,
		Started:      r.start.UTC().Round(0),
		PeakInFlight: int(r.live.peak.Load()),
		Models:       map[string]*Group{},
		Replicas:     map[string]*Group{},
		Samples:      map[string]string{},
	}
	if r.o.Concurrency > 0 {
		res.Mode = "closed"
	}
	if r.o.SLO != (SLO{}) {
		res.SLO = &r.o.SLO
	}
	res.Abandoned, res.NotKept = rs.abandoned, rs.notKept
	res.Timeline = newTimeline(rs.records)
	res.EventClock = "kernel"
	if r.pool.unstamped.Load() {
		res.EventClock = "client"
	}
	res.add(rs)
	if r.o.KeepRecords {
		res.Records = rs.records
	}
	res.warn()
	return res
}

func (res *Results) add(rs *recorder) {
	var all []*Record
	models, replicas := map[string][]*Record{}, map[string][]*Record{}
	for i := range rs.records {
		rec := &rs.records[i]
		if rec.Warmup {
			res.WarmupRequests++
			continue
		}
		all = append(all, rec)
		models[rec.Model] = append(models[rec.Model], rec)
		replicas[rec.Replica] = append(replicas[rec.Replica], rec)
		res.note(rec)
	}
	res.Seconds = span(all).Seconds()
	res.Lateness = summarize(all, func(rec *Record) (time.Duration, bool) { return rec.Lateness(), true })
	res.Group = *newGroup(all, &rs.itl, res)
	for name, recs := range models {
		res.Models[name] = newGroup(recs, rs.models[name], res)
	}
	for name, recs := range replicas {
		res.Replicas[name] = newGroup(recs, rs.replicas[name], res)
	}
}

// note counts what is remarkable about a single request.
func (res *Results) note(rec *Record) {
	switch {
	case rec.OK() && rec.OutputTokens == 0:
		res.NoUsage++
	case rec.OK() && rec.OutputTokens != rec.AskedOutput:
		res.WrongLength++
	case !rec.OK() && rec.Cause != CauseCancelled && res.Samples[rec.failure()] == "":
		res.Samples[rec.failure()] = rec.Detail
	}
}

// span is from the first scheduled time to the last end.
func span(recs []*Record) time.Duration {
	if len(recs) == 0 {
		return 0
	}
	first, last := recs[0].Scheduled, recs[0].End
	for _, rec := range recs {
		first, last = min(first, rec.Scheduled), max(last, rec.End)
	}
	return last - first
}

func newGroup(recs []*Record, itl *histogram, res *Results) *Group {
	g := &Group{Requests: len(recs), Errors: map[string]int{}}
	for _, rec := range recs {
		g.count(rec)
	}
	if res.Seconds > 0 {
		g.RequestsPerSecond = float64(g.OK) / res.Seconds
		g.OutputTokensPerSecond = float64(g.OutputTokens) / res.Seconds
	}
	if res.SLO != nil {
		g.judge(recs, *res.SLO, res.Seconds)
	}
	of := func(latency func(*Record) time.Duration, counts func(*Record) bool) Summary {
		return summarize(recs, func(rec *Record) (time.Duration, bool) {
			return latency(rec), rec.OK() && counts(rec)
		})
	}
	always := func(*Record) bool { return true }
	streamed := func(rec *Record) bool { return rec.Events > 0 }
	g.TTFT = of((*Record).TTFT, streamed)
	g.TTFTFromSend = of((*Record).TTFTFromSend, streamed)
	g.TPOT = of((*Record).TPOT, func(rec *Record) bool { return rec.Events > 0 && rec.OutputTokens > 1 })
	g.E2E = of((*Record).E2E, always)
	g.E2EFromSend = of((*Record).E2EFromSend, always)
	if itl != nil {
		g.ITL, g.ITLCounts = itl.summary(), itl.pairs()
	}
	return g
}

// judge counts the good ones.
func (g *Group) judge(recs []*Record, slo SLO, seconds float64) {
	good, rate := 0, 0.0
	for _, rec := range recs {
		if slo.Good(rec) {
			good++
		}
	}
	if seconds > 0 {
		rate = float64(good) / seconds
	}
	g.Good, g.GoodputPerSecond = &good, &rate
}

func (g *Group) count(rec *Record) {
	switch {
	case rec.OK():
		g.OK++
		g.PromptTokens += int64(rec.PromptTokens)
		g.OutputTokens += int64(rec.OutputTokens)
		g.CachedTokens += int64(rec.CachedTokens)
	case rec.Cause == CauseCancelled:
		g.Cancelled++
	default:
		g.Failed++
		g.Errors[rec.failure()]++
	}
}

// summarize describes the latencies the function picks, exactly.
func summarize(recs []*Record, pick func(*Record) (time.Duration, bool)) Summary {
	ms := make([]float64, 0, len(recs))
	sum := 0.0
	for _, rec := range recs {
		if d, ok := pick(rec); ok {
			ms = append(ms, millis(d))
			sum += millis(d)
		}
	}
	if len(ms) == 0 {
		return Summary{}
	}
	slices.Sort(ms)
	return Summary{
		Count: len(ms),
		Mean:  sum / float64(len(ms)),
		P50:   Percentile(ms, .5),
		P90:   Percentile(ms, .9),
		P99:   Percentile(ms, .99),
		Max:   ms[len(ms)-1],
	}
}

// Percentile of sorted values interpolates between the two nearest ranks, as numpy.percentile and
// so vllm bench does by default.
func Percentile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	low := math.Floor(at)
	i := int(low)
	if i+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + (at-low)*(sorted[i+1]-sorted[i])
}

func (r *Results) warn() {
	if r.Lateness.P99 > millis(MaxLateness) {
		r.Warnings = append(r.Warnings, r.latenessError().Error())
	}
	if r.WrongLength > 0 {
		r.Warnings = append(r.Warnings, fmt.Sprintf("%d answers are not of the length asked for", r.WrongLength))
	}
	if r.NoUsage > 0 {
		r.Warnings = append(r.Warnings, fmt.Sprintf("%d answers have no usage count; token figures leave them out", r.NoUsage))
	}
}
