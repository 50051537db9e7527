package trace

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
)

// Mix shares arrivals out among models in proportion to their weights. The zero
// Mix draws the empty name.
type Mix struct {
	names      []string
	cumulative []float64
}

// NewMix makes a mix; names and weights go together, weights need not add up to 1.
func NewMix(names []string, weights []float64) (Mix, error) {
	if len(names) != len(weights) {
		panic(fmt.Sprintf("BUG: trace: %d names and %d weights", len(names), len(weights)))
	}
	m := Mix{}
	sum := 0.0
	for i, name := range names {
		w := weights[i]
		sum += w
		if name == "" || !(w > 0) || math.IsInf(sum, 1) {
			return Mix{}, fmt.Errorf("model %q with weight %v; want a name and a finite weight above 0", name, w)
		}
		m.names = append(m.names, name)
		m.cumulative = append(m.cumulative, sum)
	}
	return m, nil
}

// ParseMix reads NAME or NAME=WEIGHT, one for each model; without a weight it is
// 1. What follows the last = is a weight only if it is a number, so a name may
// contain one.
func ParseMix(specs []string) (Mix, error) {
	names, weights := make([]string, len(specs)), make([]float64, len(specs))
	for i, spec := range specs {
		names[i], weights[i] = spec, 1
		if cut := strings.LastIndexByte(spec, '='); cut >= 0 {
			if w, err := strconv.ParseFloat(spec[cut+1:], 64); err == nil {
				names[i], weights[i] = spec[:cut], w
			}
		}
	}
	return NewMix(names, weights)
}

// Names lists the models of the mix.
func (m Mix) Names() []string { return m.names }

// Draw takes one model.
func (m Mix) Draw(r *rand.Rand) string {
	if len(m.names) == 0 {
		return ""
	}
	x := r.Float64() * m.cumulative[len(m.cumulative)-1]
	for i, c := range m.cumulative {
		if x < c {
			return m.names[i]
		}
	}
	return m.names[len(m.names)-1]
}
