package strategy

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// vec is three ratios to the prior coefficients, or three features.
type vec [3]float64

// regression is weighted least squares of y over three features, with exponential
// forgetting and a ridge that pulls the ratios to a center. It is what recursive
// least squares computes, but the pull does not fade, so that a direction without
// news stays where the center is instead of drifting.
type regression struct {
	xx [6]float64 // upper triangle of the sum of z·zᵀ
	xy vec
	at time.Time
	// strange counts samples in a row that were far off.
	strange int
}

const (
	// forgetAfter is the time constant of forgetting: replicas change with what
	// runs beside them, not within a minute.
	forgetAfter = 5 * time.Minute
	// forgetPerSample stands for it when nobody knows the time.
	forgetPerSample = 1.0 / 512
	// The ridge is how many samples the center weighs: little for a model, which
	// starts from the prior, much for a replica, which starts from its model. Equal
	// replicas must not seem to differ by what chance has sent them.
	replicaRidge, modelRidge = 8, 1
	// outlier is how many times off a sample may be, manyOutliers how many in a row
	// are no outliers but the truth.
	outlier, manyOutliers = 5, 10
	// fewSamples is below how many nothing is strange: there is only the prior to
	// compare with.
	fewSamples = 3
	// The range of ratios: of a replica around its model, of a model around the
	// prior, which is one device and one size of model. 1/32 to 32 reaches from a 1B
	// model on the newest device to 70B on old ones.
	replicaRange, modelRange = 3, 32
)

// add takes a sample: x are the features times the prior coefficients, so that they
// add up to what the prior predicts; y is what was seen; ratios is what is believed.
// It reports whether the sample was taken.
func (g *regression) add(x vec, y float64, ratios vec, now time.Time) bool {
	expected, believed := x[0]+x[1]+x[2], x[0]*ratios[0]+x[1]*ratios[1]+x[2]*ratios[2]
	if !(y > 0) || !(expected > 0) {
		return false
	}
	if g.samples() >= fewSamples && (y > outlier*believed || y*outlier < believed) {
		if g.strange++; g.strange < manyOutliers {
			return false
		}
	} else {
		g.strange = 0
	}
	g.forget(now)
	// Relative errors count: a long prefill is not worth more than a short one.
	z, t := vec{x[0] / expected, x[1] / expected, x[2] / expected}, y/expected
	for i, k := 0, 0; i < 3; i++ {
		for j := i; j < 3; j, k = j+1, k+1 {
			g.xx[k] += z[i] * z[j]
		}
		g.xy[i] += z[i] * t
	}
	return true
}

// samples is how many there are, those forgotten in part counted in part: the
// features of each add up to 1.
func (g *regression) samples() float64 {
	return g.xx[0] + g.xx[3] + g.xx[5] + 2*(g.xx[1]+g.xx[2]+g.xx[4])
}

func (g *regression) forget(now time.Time) {
	keep := 1.0 - forgetPerSample
	if !now.IsZero() && !g.at.IsZero() {
		keep = math.Exp(-max(now.Sub(g.at), 0).Seconds() / forgetAfter.Seconds())
	}
	g.at = now
	g.keep(keep)
}

func (g *regression) keep(part float64) {
	for k := range g.xx {
		g.xx[k] *= part
	}
	for i := range g.xy {
		g.xy[i] *= part
	}
}

// solve returns the ratios, each within a factor of limit around its center.
func (g *regression) solve(center vec, limit float64) vec {
	ridge := float64(replicaRidge)
	if limit == modelRange {
		ridge = modelRidge
	}
	a, b, c := g.xx[0]+ridge, g.xx[1], g.xx[2]
	d, e, f := g.xx[3]+ridge, g.xx[4], g.xx[5]+ridge
	var r vec
	for i := range r {
		r[i] = g.xy[i] + ridge*center[i]
	}
	// Cramer's rule; the matrix is positive definite thanks to the ridge.
	A, B, C := d*f-e*e, c*e-b*f, b*e-c*d
	D, E, F := a*f-c*c, b*c-a*e, a*d-b*b
	det := a*A + b*B + c*C
	r = vec{(A*r[0] + B*r[1] + C*r[2]) / det, (B*r[0] + D*r[1] + E*r[2]) / det, (C*r[0] + E*r[1] + F*r[2]) / det}
	for i := range r {
		r[i] = min(max(r[i], center[i]/limit), center[i]*limit)
	}
	return r
}

// number is a float64 that is read and written by anybody.
type number struct{ bits atomic.Uint64 }

func (n *number) load() float64   { return math.Float64frombits(n.bits.Load()) }
func (n *number) store(v float64) { n.bits.Store(math.Float64bits(v)) }

// learner learns what the coefficients of one replica are, or of a whole model: a
// replica that is new begins with those of its model.
type learner struct {
	prefill, decode [3]number // ratios to the prior
	// changes counts what happens to these, and to what else of a costState a pick
	// keeps. It grows after the change: who has read the count before and finds it
	// as it was has missed nothing.
	changes atomic.Uint32
}

// regressions are what a learner learns by.
type regressions struct {
	mu              sync.Mutex
	prefills, steps regression
}

func (l *learner) reset(to vec, steps vec) {
	for i := range 3 {
		l.prefill[i].store(to[i])
		l.decode[i].store(steps[i])
	}
	l.changes.Add(1)
}

func load(n *[3]number) vec { return vec{n[0].load(), n[1].load(), n[2].load()} }

func store(n *[3]number, v vec) {
	for i := range v {
		n[i].store(v[i])
	}
}

// learn adds a sample to one of the two regressions. A sample that meets another
// one is left out: the next one is as good, and nobody waits.
func (l *regressions) learn(g *regression, to *[3]number, x vec, y float64, center vec, limit float64, now time.Time) {
	if !l.mu.TryLock() {
		return
	}
	defer l.mu.Unlock()
	// What is beyond the range of ratios must not take longer to forget for that.
	y = min(y, 2*limit*(x[0]*center[0]+x[1]*center[1]+x[2]*center[2]))
	if g.add(x, y, load(to), now) {
		store(to, g.solve(center, limit))
	}
}

// recenter forgets what is old and pulls to another center.
func (l *regressions) recenter(g *regression, to *[3]number, center vec, limit float64, now time.Time) {
	if !l.mu.TryLock() {
		return
	}
	defer l.mu.Unlock()
	g.forget(now)
	store(to, g.solve(center, limit))
}

// age forgets all but a part of what was learned.
func (l *regressions) age(keep float64) {
	if !l.mu.TryLock() {
		return
	}
	defer l.mu.Unlock()
	l.prefills.keep(keep)
	l.steps.keep(keep)
}

// samples is how many first tokens count, unless somebody learns at the moment.
func (l *regressions) samples() (n float64, ok bool) {
	if !l.mu.TryLock() {
		return 0, false
	}
	defer l.mu.Unlock()
	return l.prefills.samples(), true
}

// mean is a moving average that is the plain mean of the first samples.
type mean struct {
	value number
	n     atomic.Int64
}

// meanSpan is how many samples a moving average looks back.
const meanSpan = 200

func (m *mean) add(v float64) {
	n := m.n.Add(1)
	old := m.value.load()
	m.value.store(old + (v-old)/float64(min(n, meanSpan)))
}

// learn is add for what a replica says. One word of it makes the mean twice as large at
// most, once there were as many as it looks back on: nobody asks later whether it is true,
// and one length in the billions would take thousands of honest ones to fade.
func (m *mean) learn(v, usual float64) {
	m.add(min(v, meanSpan*max(m.or(usual), usual)))
}

// or returns the mean, before the first sample v.
func (m *mean) or(v float64) float64 {
	if m.n.Load() == 0 {
		return v
	}
	return m.value.load()
}
