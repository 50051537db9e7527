package replay

import (
	"math"
	"slices"
	"time"
)

// Spread sums up a distribution of times, in milliseconds.
type Spread struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P95  float64 `json:"p95"`
	P99  float64 `json:"p99"`
	Max  float64 `json:"max"`
}

// Result is what came of one run. All but counts leave the warm-up out.
type Result struct {
	Policy   string  `json:"policy"`
	Workload string  `json:"workload"`
	Fleet    string  `json:"fleet"`
	Replicas int     `json:"replicas"`
	LBDs     int     `json:"lbds"`
	Seed     uint64  `json:"seed"`
	PollMS   float64 `json:"poll_ms"`

	// Requests were offered, Completed to their last token; Failed got an error or a truncated answer, of them Refused
	// because no replica was in service, Late because of Config.Admission (tables call these refused). Unfinished were cut
	// off by the horizon. TooLong were refused by the replica: longer than its context. Stopped, Enough: see Config.MaxBad.
	// Retries counts sendings beyond the first, Preemptions those of the engines.
	Requests    int    `json:"requests"`
	Completed   int    `json:"completed"`
	Failed      int    `json:"failed"`
	Refused     int    `json:"refused"`
	Late        int    `json:"refused_late"`
	TooLong     int    `json:"too_long"`
	Unfinished  int    `json:"unfinished"`
	Retries     int    `json:"retries"`
	Preemptions uint64 `json:"preemptions"`
	Stopped     bool   `json:"stopped,omitempty"`
	Enough      bool   `json:"enough,omitempty"`

	TTFT Spread `json:"ttft_ms"`
	ITL  Spread `json:"itl_ms"`
	TPOT Spread `json:"tpot_ms"`
	E2E  Spread `json:"e2e_ms"`
	// Normalised is E2E per output token, the mean, in milliseconds.
	Normalised float64 `json:"normalised_ms"`

	// Good is the share of requests within the limits, failed ones counted as not; GoodRate is how many per second.
	Good     float64 `json:"good"`
	GoodRate float64 `json:"good_per_s"`
	// LateShare is Late per request.
	LateShare float64 `json:"refused_late_share"`
	// HitRate is cached prompt tokens per prompt token.
	HitRate float64 `json:"hit_rate"`
	// OutputRate is generated tokens per second, from the first arrival to the last end.
	OutputRate float64 `json:"output_tokens_per_s"`
	// Seconds is the virtual time from the first arrival to the last end.
	Seconds float64 `json:"seconds"`
	// Busy is the mean share of time replicas computed; BusyCoV and RequestsCoV are standard deviation by mean over
	// replicas, per speed.
	Busy        float64 `json:"busy"`
	BusyCoV     float64 `json:"busy_cov"`
	RequestsCoV float64 `json:"requests_cov"`
	// HeldMax is the longest queue of requests held back in an lbd.
	HeldMax int `json:"held_max,omitempty"`
	// Bounds are limits to compare with; see Bounds.
	Bounds *Bounds `json:"bounds,omitempty"`

	// Each has what single requests got, in order of arrival, for statistics over runs; NaN for what failed.
	Each []Served `json:"-"`
}

// Served is what one request got, in milliseconds. A request that failed has Failed set, and zeros.
type Served struct {
	TTFT, TPOT, E2E float32
	Output          int32
	Good, Failed    bool
	Late            bool // it failed because of Config.Admission
	Warmup          bool
}

// spreadOf sums up values in milliseconds; it sorts them.
func spreadOf(v []float64) Spread {
	if len(v) == 0 {
		return Spread{}
	}
	slices.Sort(v)
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return Spread{Mean: sum / float64(len(v)), P50: rank(v, .5), P90: rank(v, .9), P95: rank(v, .95), P99: rank(v, .99), Max: v[len(v)-1]}
}

// rank is the nearest-rank quantile of sorted values.
func rank(v []float64, q float64) float64 {
	return v[max(0, int(math.Ceil(q*float64(len(v))))-1)]
}

func cov(v []float64) float64 {
	mean, sq := 0.0, 0.0
	for _, x := range v {
		mean += x / float64(len(v))
	}
	for _, x := range v {
		sq += (x - mean) * (x - mean) / float64(len(v))
	}
	if mean == 0 {
		return 0
	}
	return math.Sqrt(sq) / mean
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// result sums the run up.
func (r *run) result() *Result {
	res := &r.res
	res.Policy, res.Workload, res.Fleet, res.Replicas = r.cfg.Policy.Name, r.workload.Name, r.cfg.Fleet.String(), len(r.servers)
	res.LBDs, res.Seed, res.PollMS = r.cfg.LBDs, r.cfg.Seed, millis(r.cfg.Poll)
	res.LateShare = float64(res.Late) / float64(max(res.Requests, 1))
	r.latencies()
	r.balance()
	res.ITL = r.gaps.spread()
	if r.promptTokens > 0 {
		res.HitRate = float64(r.cachedTokens) / float64(r.promptTokens)
	}
	res.Seconds = (r.lastEnd - r.firstArrival).Seconds()
	if res.Seconds > 0 {
		res.OutputRate = float64(r.outputTokens) / res.Seconds
	}
	return res
}

func (r *run) latencies() {
	warm := int(r.cfg.Warmup * float64(len(r.each)))
	var ttft, tpot, e2e []float64
	good, norm := 0, 0.0
	for i := range r.each {
		s := &r.each[i]
		if s.Warmup = i < warm; s.Warmup || s.Failed {
			continue
		}
		ttft = append(ttft, float64(s.TTFT))
		e2e = append(e2e, float64(s.E2E))
		norm += float64(s.E2E) / float64(s.Output)
		if s.Output > 1 {
			tpot = append(tpot, float64(s.TPOT))
		}
		if s.Good {
			good++
		}
	}
	res := &r.res
	if len(ttft) > 0 {
		res.Normalised = norm / float64(len(ttft))
	}
	res.TTFT, res.TPOT, res.E2E, res.Each = spreadOf(ttft), spreadOf(tpot), spreadOf(e2e), r.each
	if counted := len(r.each) - warm; counted > 0 {
		res.Good = float64(good) / float64(counted)
		if span := (r.lastArrival - r.firstArrival).Seconds() * (1 - r.cfg.Warmup); span > 0 {
			res.GoodRate = float64(good) / span
		}
	}
}

func (r *run) balance() {
	var busy, requests []float64
	span := r.lastEnd.Seconds()
	for _, s := range r.servers {
		r.res.Preemptions += s.preemptions + s.e.Stats().Preemptions
		busy = append(busy, s.busy.Seconds())
		requests = append(requests, float64(s.requests)/s.Speed)
		if span > 0 {
			r.res.Busy += s.busy.Seconds() / span / float64(len(r.servers))
		}
	}
	r.res.BusyCoV, r.res.RequestsCoV = cov(busy), cov(requests)
}
