package replay

import (
	"fmt"
	"time"

	"lbd/balancer"
	"lbd/bench/sim/engine"
)

// Config is one run.
type Config struct {
	Fleet  Fleet
	Policy Policy
	// LBDs share the traffic at random; each has its own state. 0 means 1.
	LBDs int
	// Poll is the period in which each lbd reads all gauges; 0 means a second.
	Poll time.Duration
	// Seed is of everything drawn: front-end delays, which lbd gets a request, step jitter, ties.
	Seed uint64
	// NonStreaming is the share of requests that are not streamed, 0 to 1.
	NonStreaming float64
	// KVFactor scales every replica's KV capacity; 0 means 1.
	KVFactor float64
	// PromptError is how far off the prompt lengths are that shipped strategies get to know: lognormal with this sigma, drawn
	// per request. lbd has no tokenizer; it estimates lengths from bytes.
	PromptError float64
	// StepError scales every replica's step time by a factor drawn once per replica and unknown to every router: lognormal
	// with this sigma. It is there to see whether a ranking survives an engine model that is wrong.
	StepError float64
	// StepFactor scales the step time of all replicas alike, unknown to every router: the engine model as a whole is off.
	// 0 means 1.
	StepFactor float64
	// CoefficientError makes what routers are told of a replica's step time wrong: each constant of the engines' model is
	// scaled by a factor drawn once per run from 1-e to 1+e, and routers are told the unscaled ones.
	CoefficientError float64
	// BlockSize of the engines in tokens; 0 means vLLM's 16. Larger ones are faster to simulate; with a trace whose own
	// blocks are a multiple of it, they hit the same except in a prompt's last block.
	BlockSize int
	// Admission is what lbd refuses beforehand, with admission_max_ttft, admission_ttft_per_token and
	// admission_max_tpot of its configuration. The queue in front of saturated models is not simulated: with a limit it
	// seldom comes to that.
	Admission Limits
	// MaxTries is how often a request may be sent; 0 means 3, as in lbd.
	MaxTries int
	Faults   []Fault
	Limits   Limits
	// Warmup is the share of the requests, the first to arrive, that are left out of the figures. They are served all
	// the same.
	Warmup float64
	// Horizon ends the run at that time, whatever is under way; 0 = when everything has ended.
	Horizon time.Duration
	// MaxBad, when above 0, ends the run as soon as more requests than that are sure not to be good: a search for the load
	// that a fleet carries need not see the end of what it does not carry. The result says Stopped then and no more.
	// MinGood, when above 0, ends it as soon as so many were good; the result says Enough. Skip of the requests, the first
	// ones, count for neither.
	MaxBad, MinGood, Skip int
	// Progress is called now and then with virtual time and the requests that have ended.
	Progress func(now time.Duration, ended int)

	sharedCache bool // all replicas reuse what any has computed, see BoundsOf
}

// Limits are lbd's own: what makes a request good is what it refuses by.
type Limits = balancer.Limits

// DefaultLimits are those of a chat on an 8B model.
var DefaultLimits = Limits{TTFT: 2 * time.Second, TPOT: 50 * time.Millisecond}

// Fault is something that happens to a replica.
type Fault struct {
	Replica int
	At      time.Duration
	// For is how long it lasts; 0 = to the end.
	For time.Duration
	// Factor stretches the replica's steps; 0 is a crash: it loses everything, refuses connections while the fault
	// lasts, and comes back empty.
	Factor float64
}

func (c *Config) fill() error {
	set := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	if c.StepFactor == 0 {
		c.StepFactor = 1
	}
	set(&c.LBDs, 1)
	set(&c.MaxTries, 3)
	set(&c.BlockSize, 16)
	if c.Poll == 0 {
		c.Poll = time.Second
	}
	if c.KVFactor == 0 {
		c.KVFactor = 1
	}
	if c.Limits == (Limits{}) {
		c.Limits = DefaultLimits
	}
	return c.check()
}

func (c *Config) check() error {
	n := c.Fleet.Size()
	switch {
	case n < 1 || n > maxReplicas:
		return fmt.Errorf("fleet of %d replicas; want 1 to %d", n, maxReplicas)
	case c.Policy.New == nil:
		return fmt.Errorf("no policy")
	case c.LBDs < 1 || c.LBDs > 1000:
		return fmt.Errorf("%d lbds; want 1 to 1000", c.LBDs)
	case c.Poll < time.Millisecond:
		return fmt.Errorf("poll period %v; want at least a millisecond", c.Poll)
	case !(c.NonStreaming >= 0 && c.NonStreaming <= 1):
		return fmt.Errorf("share %v of requests not streamed; want 0 to 1", c.NonStreaming)
	case !(c.KVFactor > 0):
		return fmt.Errorf("KV factor %v; want more than 0", c.KVFactor)
	case !(c.StepFactor > 0):
		return fmt.Errorf("step factor %v; want more than 0", c.StepFactor)
	case !(c.CoefficientError >= 0 && c.CoefficientError < 1):
		return fmt.Errorf("coefficient error %v; want 0 to below 1", c.CoefficientError)
	case c.Skip < 0:
		return fmt.Errorf("%d requests to skip; want 0 or more", c.Skip)
	case !(c.Warmup >= 0 && c.Warmup < 1):
		return fmt.Errorf("warm-up %v; want 0 to below 1", c.Warmup)
	case c.Limits.TTFT <= 0 || c.Limits.TPOT <= 0 || c.Limits.TTFTPerToken < 0:
		return fmt.Errorf("a request is good with a first token within %v and %v per token, output tokens within %v each; want more than 0",
			c.Limits.TTFT, c.Limits.TTFTPerToken, c.Limits.TPOT)
	case c.Admission.TTFT < 0 || c.Admission.TTFTPerToken < 0 || c.Admission.TPOT < 0:
		return fmt.Errorf("first tokens limited to %v and %v per token, output tokens to %v; want 0 or more",
			c.Admission.TTFT, c.Admission.TTFTPerToken, c.Admission.TPOT)
	case c.Admission.TTFT == 0 && c.Admission.TTFTPerToken > 0:
		return fmt.Errorf("first tokens limited by %v per token alone; want a limit that it adds to", c.Admission.TTFTPerToken)
	case c.BlockSize < 1 || c.MaxTries < 1:
		return fmt.Errorf("block size %d and %d tries; want at least 1", c.BlockSize, c.MaxTries)
	}
	for _, f := range c.Faults {
		if err := f.Check(n); err != nil {
			return err
		}
	}
	return nil
}

// Check says why the fault cannot happen to a fleet of so many replicas.
func (f *Fault) Check(replicas int) error {
	switch {
	case f.Replica < 0 || f.Replica >= replicas:
		return fmt.Errorf("a fault of replica %d in a fleet of %d; want 0 to %d", f.Replica, replicas, replicas-1)
	case f.At < 0:
		return fmt.Errorf("a fault of replica %d at %v; want 0 or later", f.Replica, f.At)
	case f.For < 0:
		return fmt.Errorf("a fault of replica %d for %v; want 0 or more", f.Replica, f.For)
	case !(f.Factor >= 0):
		return fmt.Errorf("a fault of replica %d by a factor of %v; want 0 or more", f.Replica, f.Factor)
	}
	return nil
}

// servers makes the replicas.
func (c *Config) servers() ([]*server, error) {
	var all []*server
	for _, g := range c.Fleet {
		for range g.Count {
			i := len(all)
			cfg := g.Engine
			cfg.Preset, cfg.Seed, cfg.Quiet, cfg.Progress = g.Preset, c.Seed<<16+uint64(i), true, c.Policy.Tokens
			if err := c.scaleKV(&cfg); err != nil {
				return nil, err
			}
			info := ReplicaInfo{ID: fmt.Sprintf("replica-%d:8000", i), Weight: max(g.Weight, 1), Speed: 1}
			if g.Speed > 0 {
				info.Speed = g.Speed
			}
			s, err := newServer(i, info, cfg, c.wrongly)
			if err != nil {
				return nil, err
			}
			s.slow *= c.stepError(i) * c.StepFactor
			all = append(all, s)
		}
	}
	return all, nil
}

// scaleKV applies KVFactor and BlockSize to the size of the pool.
func (c *Config) scaleKV(cfg *engine.Config) error {
	tokens := cfg.NumBlocks * 16
	if tokens == 0 {
		e, err := engine.New(engine.Config{Preset: cfg.Preset, Model: cfg.Model, Profile: cfg.Profile})
		if err != nil {
			return err
		}
		tokens = e.Config().NumBlocks * e.Config().BlockSize
	}
	cfg.BlockSize = c.BlockSize
	cfg.NumBlocks = max(1, int(float64(tokens)*c.KVFactor)/c.BlockSize)
	return nil
}
