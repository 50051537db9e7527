package main

import (
	"fmt"
	"path/filepath"
	"time"

	"lbd/balancer/strategy"
	"lbd/bench/replay"
	"lbd/bench/trace"
)

// slice is a part of the trace that both media get: it begins where the cells of bench/replay/placement begin, and is short
// because over HTTP it takes its time.
type slice struct {
	arrivals []trace.Arrival
	refused  replay.Limits // beyond which requests are refused
}

const (
	traceFile  = "mooncake_fast25_conversation.jsonl.gz"
	traceStart = 30 * time.Minute
	// length of the slice in real time.
	length = 60 * time.Second
	// longest request: a body of 128 KB. Three quarters of the trace's tokens are in requests up to it.
	longest = 32768
	// warm of the requests, the first ones, are not counted: caches are empty then.
	warm = .2
)

// limits of a good request, those of the chat cells of bench/replay/placement.
var limits = replay.Limits{TTFT: 2 * time.Second, TPOT: 50 * time.Millisecond}

func openSlice(dir string, speed float64) (*slice, error) {
	if !(speed > 0) {
		return nil, fmt.Errorf("-speed %v; want more than 0", speed)
	}
	t, err := trace.Open(filepath.Join(dir, traceFile), trace.FormatMooncake, 1)
	if err != nil {
		return nil, err
	}
	all, err := t.Window(traceStart, time.Duration(float64(length)*speed)).MaxTokens(longest, nil).SpeedUp(speed).Collect()
	return &slice{arrivals: all}, err
}

// counted says whether a request is past the warm-up.
func (s *slice) counted(i int) bool { return i >= int(warm*float64(len(s.arrivals))) }

// served is what one strategy did for each request, in order; times in milliseconds.
type served struct {
	Strategy string `json:"strategy"`
	// TTFT of each counted request; a failed one has that of the client's patience, see failed.
	TTFT []float64 `json:"ttft_ms"`
	// TPOT of each, 0 where there was no second token.
	TPOT []float64 `json:"tpot_ms"`
	// Refused were answered 429; they have TTFTs as failed ones have.
	Refused int `json:"refused,omitempty"`
	// Failed requests, and prompt tokens found in caches per prompt token.
	Failed  int     `json:"failed"`
	HitRate float64 `json:"hit_rate"`
	// LateMS is how much later than planned the client was at most.
	LateMS float64 `json:"late_ms,omitempty"`
}

// failed is the TTFT of a request that got no answer: as bad as one that came after a minute.
const failed = 60_000

func (s *slice) replay(names []string, replicas int, seed uint64) (all []served, err error) {
	w := replay.Open("slice", trace.Of(trace.MooncakeBlock, s.arrivals...))
	for _, name := range names {
		e, ok := strategy.Lookup(name)
		if !ok {
			return nil, fmt.Errorf("-strategies: %q is unknown", name)
		}
		res, err := replay.Run(replay.Config{
			Fleet: replay.Fleet{{Count: replicas}}, Policy: replay.Shipped(e), Seed: seed, Limits: limits,
			Admission: s.refused,
		}, w)
		if err != nil {
			return nil, err
		}
		one := served{Strategy: name, HitRate: res.HitRate}
		for i, q := range res.Each {
			if !s.counted(i) {
				continue
			}
			switch {
			case q.Late:
				one.Refused++
				q.TTFT = failed
			case q.Failed:
				one.Failed++
				q.TTFT = failed
			}
			one.TTFT = append(one.TTFT, round1(float64(q.TTFT)))
			one.TPOT = append(one.TPOT, round1(float64(q.TPOT)))
		}
		all = append(all, one)
	}
	return all, nil
}

// round1 keeps a tenth of a millisecond, for the size of the file.
func round1(ms float64) float64 { return float64(int64(ms*10+.5)) / 10 }
