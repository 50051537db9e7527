package workload

import (
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"lbd/bench/load"
	"lbd/bench/trace"
)

// Random streams, the second word of each PCG: what is drawn in one never moves
// what is drawn in another.
const (
	streamArrival = iota + 101
	streamClass
	streamModel
	streamInput
	streamOutput
	streamTenant
	streamTurns
	streamLater
	streamThink
)

// drawer holds the random streams of one run.
type drawer struct {
	w                               *Workload
	arrival, class, model, tenant   *rand.Rand
	input, output, turns            *rand.Rand
	laterInput, laterOutput, thinks *rand.Rand
	mixes                           []trace.Mix
	classes                         []float64   // cumulative weights
	tenants                         [][]float64 // cumulative weights, for each class
}

// Draw makes the requests of the workload. The models are those of classes that name none. The
// workload has to be valid.
func (w *Workload) Draw(models trace.Mix, seed uint64) iter.Seq[load.Request] {
	return func(yield func(load.Request) bool) {
		d := w.drawer(models, seed)
		due := 0.0
		for sent := 0; w.Requests == 0 || sent < w.Requests; {
			q := d.conversation()
			if w.Requests > 0 {
				q.Turns = q.Turns[:min(len(q.Turns), w.Requests-sent-1)]
			}
			if w.Arrival.Rate > 0 {
				due += w.Arrival.gap(d.arrival)
				q.At = time.Duration(w.Arrival.at(due) * float64(time.Second))
			}
			if w.Arrival.Rate > 0 && w.Duration > 0 && q.At >= w.Duration || !yield(q) {
				return
			}
			sent += 1 + len(q.Turns)
		}
	}
}

func (w *Workload) drawer(models trace.Mix, seed uint64) *drawer {
	stream := func(n uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, n)) }
	d := &drawer{
		w: w, arrival: stream(streamArrival), class: stream(streamClass), model: stream(streamModel), tenant: stream(streamTenant),
		input: stream(streamInput), output: stream(streamOutput), turns: stream(streamTurns),
		laterInput: stream(streamLater), laterOutput: stream(streamLater + 100), thinks: stream(streamThink),
	}
	sum := 0.0
	for i := range w.Classes {
		c := &w.Classes[i]
		sum += c.Weight
		d.classes = append(d.classes, sum)
		d.mixes = append(d.mixes, c.mix(models))
		d.tenants = append(d.tenants, c.Prefix.cumulative())
	}
	return d
}

// mix is the class's own models, or those given.
func (c *Class) mix(models trace.Mix) trace.Mix {
	if len(c.Models) == 0 {
		return models
	}
	names, values := make([]string, 0, len(c.Models)), make([]float64, 0, len(c.Models))
	for name := range c.Models {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		values = append(values, c.Models[name])
	}
	mix, err := trace.NewMix(names, values)
	if err != nil {
		panic("BUG: workload: models that were checked: " + err.Error())
	}
	return mix
}

// cumulative is the sums of k^-skew.
func (p Prefix) cumulative() []float64 {
	sums := make([]float64, p.Tenants)
	sum := 0.0
	for k := range sums {
		sum += math.Pow(float64(k+1), -p.Skew)
		sums[k] = sum
	}
	return sums
}

// pick draws an index in proportion to the steps of the cumulative weights.
func pick(r *rand.Rand, cumulative []float64) int {
	x := r.Float64() * cumulative[len(cumulative)-1]
	i, _ := slices.BinarySearch(cumulative, math.Nextafter(x, math.Inf(1)))
	return min(i, len(cumulative)-1)
}

func (d *drawer) conversation() load.Request {
	class := pick(d.class, d.classes)
	c := &d.w.Classes[class]
	q := load.Request{
		Model:        d.mixes[class].Draw(d.model),
		Class:        c.Name,
		PromptTokens: c.Input.Draw(d.input),
		OutputTokens: c.Output.Draw(d.output),
		Stream:       c.Stream,
	}
	if c.Prefix.Tenants > 0 {
		// Never 0, and different for the tenants of two classes.
		q.Prefix = uint64(class)<<32 | uint64(pick(d.tenant, d.tenants[class])+1)
		q.PrefixTokens = c.Prefix.Tokens
		q.PromptTokens += c.Prefix.Tokens
	}
	for range c.Turns.Draw(d.turns) - 1 {
		q.Turns = append(q.Turns, load.Turn{
			Think:        c.Think.draw(d.thinks),
			PromptTokens: c.later().Draw(d.laterInput),
			OutputTokens: c.Output.Draw(d.laterOutput),
		})
	}
	return q
}
