package workload

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Processes of arrival.
const (
	Poisson  = "poisson"
	Constant = "constant"
	Gamma    = "gamma"
)

var processes = []string{Poisson, Constant, Gamma}

// Shapes of a ramp.
const (
	Linear      = "linear"
	Exponential = "exponential"
)

var shapes = []string{Linear, Exponential}

// Arrival is when conversations begin.
type Arrival struct {
	// Process is Poisson if empty.
	Process string
	// Burstiness is the shape of the gamma distribution of the gaps: 1 is Poisson,
	// below 1 comes in bursts, above 1 is more even. The same as vllm bench's.
	Burstiness float64
	// Rate above 0 is the conversations per second of an open loop.
	Rate float64
	// Concurrency above 0 is the users of a closed loop.
	Concurrency int
	// RampOver is how long the load takes to reach Rate from RampFrom, or all users
	// of a closed loop to start.
	RampOver  time.Duration
	RampFrom  float64
	RampShape string // Linear if empty
}

// Rates outside overflow the times of a long run, or mean less than one request in
// a quarter of an hour.
const minRate, maxRate = 1e-3, 1e6

func (a *Arrival) validate() error {
	rate := func(r float64) bool { return r >= minRate && r <= maxRate }
	switch {
	case a.Process != "" && !slices.Contains(processes, a.Process):
		return fmt.Errorf("arrival process %q; want %s", a.Process, strings.Join(processes, ", "))
	case a.RampShape != "" && !slices.Contains(shapes, a.RampShape):
		return fmt.Errorf("ramp shape %q; want %s", a.RampShape, strings.Join(shapes, " or "))
	case a.Rate != 0 && !rate(a.Rate):
		return fmt.Errorf("rate %v; want %v to %v per second", a.Rate, minRate, maxRate)
	case a.Concurrency < 0:
		return fmt.Errorf("concurrency %d; want at least 1", a.Concurrency)
	case a.Burstiness != 0 && a.Process != Gamma:
		return fmt.Errorf("burstiness %v with %s arrivals; want gamma", a.Burstiness, a.process())
	case a.Burstiness != 0 && !(a.Burstiness >= 1e-2 && a.Burstiness <= 1e4):
		return fmt.Errorf("burstiness %v; want 0.01 to 10000", a.Burstiness)
	case a.Concurrency > 0 && (a.Process != "" || a.RampFrom != 0 || a.RampShape != ""):
		return fmt.Errorf("a process or a ramp of rates with concurrency; want a rate")
	case a.RampOver < 0:
		return fmt.Errorf("ramp over %v; want a time above 0", a.RampOver)
	case a.RampOver == 0 && (a.RampFrom != 0 || a.RampShape != ""):
		return fmt.Errorf("a ramp without its length; want one")
	case a.RampFrom != 0 && !rate(a.RampFrom):
		return fmt.Errorf("ramp from %v; want %v to %v per second", a.RampFrom, minRate, maxRate)
	case a.RampShape == Exponential && a.RampFrom == 0:
		return fmt.Errorf("an exponential ramp from 0; want a rate above 0")
	}
	return nil
}

func (a *Arrival) process() string {
	if a.Process == "" {
		return Poisson
	}
	return a.Process
}

// String describes the arrivals in words that are equal only for equal ones.
func (a *Arrival) String() string {
	b := &strings.Builder{}
	if a.Concurrency > 0 {
		fmt.Fprintf(b, "concurrency %d", a.Concurrency)
	} else {
		fmt.Fprintf(b, "%s %s/s", a.process(), number(a.Rate))
	}
	if a.Process == Gamma {
		fmt.Fprintf(b, ", burstiness %s", number(a.burstiness()))
	}
	if a.RampOver > 0 {
		fmt.Fprintf(b, ", ramp over %v", a.RampOver)
		if a.Concurrency == 0 {
			fmt.Fprintf(b, " from %s/s", number(a.RampFrom))
		}
		if a.RampShape == Exponential {
			b.WriteString(", exponential")
		}
	}
	return b.String()
}

func (a *Arrival) burstiness() float64 {
	if a.Burstiness == 0 {
		return 1
	}
	return a.Burstiness
}

// gap draws a time between two arrivals at a rate of 1.
func (a *Arrival) gap(r *rand.Rand) float64 {
	switch a.process() {
	case Constant:
		return 1
	case Gamma:
		return drawGamma(r, a.burstiness()) / a.burstiness()
	default:
		return r.ExpFloat64()
	}
}

// at is the time in seconds by which n arrivals are due: the inverse of the
// integral of the rate. Drawing gaps at rate 1 and stretching them by it makes a
// Poisson process of a changing rate (Çinlar, Introduction to Stochastic
// Processes, 1975, section 4.7).
func (a *Arrival) at(n float64) float64 {
	over, from, to := a.RampOver.Seconds(), a.RampFrom, a.Rate
	if over == 0 {
		return n / to
	}
	if a.RampShape == Exponential && from != to {
		// rate(t) = from·e^(kt/over), its integral from·over/k·(e^(kt/over) − 1).
		k := math.Log(to / from)
		if reached := from * over / k * math.Expm1(k); n > reached {
			return over + (n-reached)/to
		}
		return over / k * math.Log1p(n*k/(from*over))
	}
	// rate(t) = from + (to−from)·t/over, its integral from·t + (to−from)·t²/(2·over).
	if reached := (from + to) / 2 * over; n > reached {
		return over + (n-reached)/to
	}
	// The smaller root of a quadratic, in the form that does not cancel.
	return 2 * n / (from + math.Sqrt(from*from+2*n*(to-from)/over))
}

// drawGamma draws from the gamma distribution with the shape and scale 1
// (Marsaglia and Tsang, A Simple Method for Generating Gamma Variables, 2000).
func drawGamma(r *rand.Rand, shape float64) float64 {
	if shape < 1 {
		// 1 - Float64 is never 0, whose logarithm is not finite.
		return drawGamma(r, shape+1) * math.Pow(1-r.Float64(), 1/shape)
	}
	d := shape - 1./3
	c := 1 / math.Sqrt(9*d)
	for {
		x := r.NormFloat64()
		v := math.Pow(1+c*x, 3)
		if v > 0 && math.Log(1-r.Float64()) < x*x/2+d-d*v+d*math.Log(v) {
			return d * v
		}
	}
}
