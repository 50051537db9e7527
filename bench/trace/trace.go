package trace

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"time"
)

// Arrival is one request of a trace.
type Arrival struct {
	// At is the time since the start of the trace.
	At time.Duration
	// Model is the requested model; empty when the trace does not say.
	Model string
	// PromptTokens and OutputTokens are at least 1.
	PromptTokens, OutputTokens int
	// Blocks names the content of the prompt, Trace.BlockTokens tokens each (the
	// last may be partial). The common leading run of two lists is the prefix
	// the two prompts share. Nil when the trace does not say.
	Blocks []uint64
}

// Trace is a sequence of arrivals with what they have in common.
type Trace struct {
	// BlockTokens is the size of one element of Arrival.Blocks; 0 when the trace
	// tells nothing about prefixes.
	BlockTokens int
	// Arrivals yields the arrivals in time order. An error is the last thing it
	// yields. A trace read from an io.Reader can be ranged over once, every
	// other trace any number of times.
	Arrivals iter.Seq2[Arrival, error]
}

// Of makes a trace of arrivals already in memory, which must be in time order.
func Of(blockTokens int, arrivals ...Arrival) *Trace {
	return &Trace{BlockTokens: blockTokens, Arrivals: func(yield func(Arrival, error) bool) {
		for _, a := range arrivals {
			if !yield(a, nil) {
				return
			}
		}
	}}
}

// Collect reads the whole trace into memory.
func (t *Trace) Collect() ([]Arrival, error) {
	var all []Arrival
	for a, err := range t.Arrivals {
		if err != nil {
			return all, err
		}
		all = append(all, a)
	}
	return all, nil
}

// Window keeps the arrivals of [offset, offset+duration) and counts their time
// from offset. A duration of 0 keeps everything after offset.
func (t *Trace) Window(offset, duration time.Duration) *Trace {
	return t.with(func(yield func(Arrival, error) bool) {
		for a, err := range t.Arrivals {
			if err != nil {
				yield(Arrival{}, err)
				return
			}
			if a.At < offset {
				continue
			}
			a.At -= offset
			if duration > 0 && a.At >= duration {
				return
			}
			if !yield(a, nil) {
				return
			}
		}
	})
}

// SpeedUp divides every time by factor. It scales the load, and shortens the
// distance in time between two uses of a prefix by the same factor.
func (t *Trace) SpeedUp(factor float64) *Trace {
	if !(factor > 0) {
		panic(fmt.Sprintf("BUG: trace: speed-up %v; want more than 0", factor))
	}
	return t.mapped(func(a Arrival) (Arrival, bool) {
		a.At = time.Duration(float64(a.At) / factor)
		return a, true
	})
}

// MaxTokens drops the arrivals whose prompt and output together exceed limit:
// a replica answers 400 to them. Dropped requests must be reported with any
// figure made from the rest; dropped (may be nil) is called for each.
func (t *Trace) MaxTokens(limit int, dropped func(Arrival)) *Trace {
	return t.mapped(func(a Arrival) (Arrival, bool) {
		fits := a.PromptTokens+a.OutputTokens <= limit
		if !fits && dropped != nil {
			dropped(a)
		}
		return a, fits
	})
}

// OfModel keeps the arrivals that ask for the model.
func (t *Trace) OfModel(name string) *Trace {
	return t.mapped(func(a Arrival) (Arrival, bool) { return a, a.Model == name })
}

// First keeps the first n arrivals.
func (t *Trace) First(n int) *Trace {
	return t.with(func(yield func(Arrival, error) bool) {
		left := n
		if left <= 0 {
			return
		}
		for a, err := range t.Arrivals {
			if left--; !yield(a, err) || left == 0 {
				return
			}
		}
	})
}

// WithModels gives each arrival that names no model one of the mix, the same for
// the same seed each time the trace is ranged over.
func (t *Trace) WithModels(mix Mix, seed uint64) *Trace {
	return t.with(func(yield func(Arrival, error) bool) {
		r := rand.New(rand.NewPCG(seed, streamModel))
		for a, err := range t.Arrivals {
			if model := mix.Draw(r); err == nil && a.Model == "" {
				a.Model = model
			}
			if !yield(a, err) {
				return
			}
		}
	})
}

// mapped passes every arrival through f, which may change or drop it.
func (t *Trace) mapped(f func(Arrival) (Arrival, bool)) *Trace {
	return t.with(func(yield func(Arrival, error) bool) {
		for a, err := range t.Arrivals {
			keep := err != nil
			if err == nil {
				a, keep = f(a)
			}
			if keep && !yield(a, err) {
				return
			}
		}
	})
}

func (t *Trace) with(arrivals iter.Seq2[Arrival, error]) *Trace {
	return &Trace{BlockTokens: t.BlockTokens, Arrivals: arrivals}
}
