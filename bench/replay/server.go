package replay

import (
	"time"

	"lbd/balancer"
	"lbd/bench/sim/engine"
)

// server is one replica: an engine, the step it is in, and what it shows.
type server struct {
	ReplicaInfo
	number int
	e      *engine.Engine
	slow   float64 // factor on step times: 1/Speed, times those of faults
	down   bool

	until  time.Duration  // end of the step under way
	events []engine.Event // of that step; they take effect at its end
	after  gauges         // at its end
	shown  gauges         // what /metrics says now
	inbox  []int          // slots of requests that arrived since it began

	requests, restarts int
	preemptions        uint64 // before the last restart
	busy               time.Duration
	stalled            time.Duration // since decoding sequences last got a token
}

type gauges struct{ running, waiting, used int }

// newServer makes a replica. What is told of it is the preset as it is named; wrongly may change the one that is simulated.
func newServer(number int, info ReplicaInfo, cfg engine.Config, wrongly func(engine.Preset) *engine.Preset) (*server, error) {
	e, err := engine.New(cfg)
	if err != nil {
		return nil, err
	}
	info.Preset, info.Engine = e.Preset(), e.Config()
	if other := wrongly(e.Preset()); other != nil {
		cfg.Model = other
		if e, err = engine.New(cfg); err != nil {
			return nil, err
		}
	}
	return &server{until: never, ReplicaInfo: info, number: number, e: e, slow: 1 / info.Speed}, nil
}

// begin starts the next step at now. Steps that tell nothing are run through at once as far as limit: nothing can
// come in between.
func (s *server) begin(now, limit time.Duration, gaps *histogram) (end time.Duration) {
	for {
		var d time.Duration
		decoding := s.e.Decoding()
		d, s.events = s.e.Step(s.events[:0])
		if d == 0 {
			return never
		}
		d = time.Duration(float64(d) * s.slow)
		s.busy += d
		s.gap(d, decoding, gaps)
		now += d
		s.shown = s.after
		s.after.running, s.after.waiting, s.after.used = s.e.Gauges()
		if len(s.events) > 0 || now > limit {
			s.until = now
			return now
		}
	}
}

// gap counts the time between two tokens of the sequences that were decoding before a step of length d. V0 has steps
// of prompts alone, in which they get none.
func (s *server) gap(d time.Duration, decoding int, gaps *histogram) {
	s.stalled += d
	if n := s.e.Decoded(); n > 0 {
		gaps.add(s.stalled, n)
	}
	if s.e.Decoded() > 0 || decoding == 0 {
		s.stalled = 0
	}
}

// sample is what a poll reads now.
func (s *server) sample() balancer.Sample {
	st := s.e.Stats()
	return balancer.Sample{
		Running: balancer.Known(float64(s.shown.running)), Waiting: balancer.Known(float64(s.shown.waiting)),
		KVUsage:       balancer.Known(float64(s.shown.used) / float64(s.Engine.NumBlocks)),
		KVTokens:      balancer.Known(float64(s.KVTokens())),
		PrefixQueries: balancer.Known(float64(st.PrefixQueries)), PrefixHits: balancer.Known(float64(st.PrefixHits)),
		PromptTokens: balancer.Known(float64(st.PromptTokens)), GenerationTokens: balancer.Known(float64(st.GenerationTokens)),
	}
}

// crash forgets everything.
func (s *server) crash() {
	s.preemptions += s.e.Stats().Preemptions
	s.e.Reset()
	s.down = true
	s.events, s.inbox = s.events[:0], s.inbox[:0]
	s.shown, s.after = gauges{}, gauges{}
	s.until = never
	s.restarts++
}
