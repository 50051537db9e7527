package load

import (
	"cmp"
	"slices"
	"time"
)

// timelineSteps is about how many steps a timeline has: enough for a plot, few
// enough for a file that people open.
const timelineSteps = 240

// Timeline is what each replica was busy with over the run, warm-up included.
type Timeline struct {
	// Step is the length of a step in milliseconds; step i covers [i·Step,
	// (i+1)·Step) of the run.
	Step float64 `json:"step_ms"`
	// Replicas is what the client saw, by X-Lbd-Replica ("" where none was sent).
	Replicas map[string]*Series `json:"replicas"`
	// Sampled is what lbd said of its replicas, nil when it was not asked.
	Sampled *Sampled `json:"sampled,omitempty"`
}

// Series is one replica's values, one for each step.
type Series struct {
	InFlight []float64 `json:"in_flight"` // mean number of requests between send and end
	Started  []int     `json:"started"`   // requests sent
	Ended    []int     `json:"ended"`     // requests that ended, whatever became of them
	// OutputTokens are spread evenly between a request's first and last content.
	OutputTokens []float64 `json:"output_tokens"`
}

// stepOf is the smallest round step that needs no more than timelineSteps.
func stepOf(length time.Duration) time.Duration {
	for unit := 10 * time.Millisecond; ; unit *= 10 {
		for _, n := range []time.Duration{1, 2, 5} {
			if length/(n*unit) < timelineSteps {
				return n * unit
			}
		}
	}
}

func newTimeline(recs []Record) *Timeline {
	if len(recs) == 0 {
		return nil
	}
	end := slices.MaxFunc(recs, func(a, b Record) int { return cmp.Compare(a.End, b.End) }).End
	step := stepOf(end)
	t := &Timeline{Step: millis(step), Replicas: map[string]*Series{}}
	n := int(end/step) + 1
	for i := range recs {
		rec := &recs[i]
		s := t.Replicas[rec.Replica]
		if s == nil {
			s = &Series{make([]float64, n), make([]int, n), make([]int, n), make([]float64, n)}
			t.Replicas[rec.Replica] = s
		}
		s.add(rec, step)
	}
	return t
}

func (s *Series) add(rec *Record, step time.Duration) {
	sent := max(rec.Sent, rec.Dispatched) // a request without a connection was never sent
	s.Started[sent/step]++
	s.Ended[rec.End/step]++
	spread(s.InFlight, sent, rec.End, step, 1)
	if rec.Events == 0 || rec.OutputTokens == 0 {
		return
	}
	if took := rec.LastContent - rec.FirstContent; took > 0 {
		spread(s.OutputTokens, rec.FirstContent, rec.LastContent, step, float64(rec.OutputTokens)*float64(step)/float64(took))
	} else {
		s.OutputTokens[rec.FirstContent/step] += float64(rec.OutputTokens)
	}
}

// spread adds the value to each step, weighted with the part of it that lies
// between from and to.
func spread(steps []float64, from, to, step time.Duration, value float64) {
	for i := from / step; i*step < to; i++ {
		covered := min(to, (i+1)*step) - max(from, i*step)
		steps[i] += value * float64(covered) / float64(step)
	}
}
