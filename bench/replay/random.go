package replay

import (
	"math"
	"math/rand/v2"

	"lbd/bench/sim/engine"
)

// Random streams: each is drawn apart, so that no choice of a policy moves what another one meets.
const (
	streamRouter = iota + 101
	streamStepError
	streamSessions
	streamCoefficients
	saltFrontEnd
	saltLBD
	saltStream
	saltPrompt
)

// unit is a number in [0,1) that belongs to a request of a seed, whenever it is asked for.
func unit(seed, salt, id uint64) float64 {
	return float64(mix(mix(seed+salt*golden)^id)>>11) / (1 << 53)
}

// lognormal is a factor with median 1 that belongs to a request of a seed.
func lognormal(sigma float64, seed, salt, id uint64) float64 {
	if sigma == 0 {
		return 1
	}
	// Box and Muller's first: 1-u is never 0.
	u, v := unit(seed, salt, 2*id), unit(seed, salt, 2*id+1)
	return math.Exp(sigma * math.Sqrt(-2*math.Log(1-u)) * math.Cos(2*math.Pi*v))
}

const golden = 0x9E3779B97F4A7C15

// mix is the finaliser of splitmix64 (Steele, Lea, Flood 2014).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xBF58476D1CE4E5B9
	x = (x ^ x>>27) * 0x94D049BB133111EB
	return x ^ x>>31
}

// stepError is the factor of Config.StepError for a replica.
func (c *Config) stepError(replica int) float64 {
	if c.StepError == 0 {
		return 1
	}
	r := rand.New(rand.NewPCG(c.Seed, streamStepError<<32|uint64(replica)))
	return math.Exp(c.StepError * r.NormFloat64())
}

// wrongly is the model that is simulated with CoefficientError, nil without: each constant of the step time has its own
// factor, the same one at every replica, since what is known of a kind of hardware is wrong for all of it.
func (c *Config) wrongly(p engine.Preset) *engine.Preset {
	if c.CoefficientError == 0 {
		return nil
	}
	rng := rand.New(rand.NewPCG(c.Seed, streamCoefficients))
	factor := func() float64 { return 1 + c.CoefficientError*(2*rng.Float64()-1) }
	linear := factor() // one for the whole table, so that it stays ascending
	for i := range p.Lin {
		p.Lin[i].MS *= linear
	}
	p.SlopeUS *= linear
	for _, v := range []*float64{&p.HeadMS, &p.AttentionMS, &p.DecodeUS, &p.KVTokenUS, &p.PairNS, &p.OverheadMS, &p.OverheadPerSeqUS} {
		*v *= factor()
	}
	return &p
}
