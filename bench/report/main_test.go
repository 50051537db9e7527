package report

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// traffic is a made-up environment: a queue, so that what requests wait for is
// what those before them took, as in a real one.
type traffic struct {
	service float64 // mean seconds of one request
	rate    float64
	n       int
	models  []string
	failed  int // the last so many fail
	given   map[string]string
}

// run makes one repeat; equal seeds send the same requests.
func (tr traffic) run(seed uint64, chance uint64) *Run {
	arrivals, own := rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, chance))
	r := &Run{Tool: "made up", Files: []string{fmt.Sprintf("seed-%d.json", seed)}, Started: time.Unix(int64(seed), 0), Fingerprint: fmt.Sprint(seed)}
	now, free := 0.0, 0.0
	for i := range tr.n {
		now += arrivals.ExpFloat64() / tr.rate
		work := tr.service * arrivals.ExpFloat64() * (.9 + .2*own.Float64())
		begin := max(now, free)
		free = begin + work
		q := Request{
			Sent: now, End: free + .2, TTFT: 1000 * (free - now), TPOT: 10 + own.Float64(), E2E: 1000 * (free - now + .2), Prompt: 100, Output: 20,
			Replica: fmt.Sprintf("r%d", i%2), Failed: i >= tr.n-tr.failed,
		}
		if len(tr.models) > 0 {
			q.Model = tr.models[i%len(tr.models)]
		}
		r.Requests = append(r.Requests, q)
		r.Seconds = max(r.Seconds, q.End)
	}
	r.count()
	r.Workload = Workload{Load: Load{"rate", tr.rate}, Fields: fields(map[string]string{"rate": fmt.Sprint(tr.rate), "tool": "made up"})}
	for name, value := range tr.given {
		r.Workload.Fields = append(r.Workload.Fields, Field{name, value})
	}
	return r
}

func (tr traffic) environment(name string, repeats int, chance uint64) Environment {
	e := Environment{Name: name}
	for seed := range repeats {
		e.Runs = append(e.Runs, tr.run(uint64(seed)+1, chance))
	}
	return e
}

func close(a, b, within float64) bool {
	return math.Abs(a-b) <= within || math.IsNaN(a) && math.IsNaN(b)
}
