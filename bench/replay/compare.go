package replay

import (
	"fmt"
	"runtime"
	"sync"
)

// Plan is a comparison: every policy on every fleet for every seed.
type Plan struct {
	// Config has what all runs share. Fleet, Policy and Seed are set by the plan.
	Config   Config
	Fleets   []Fleet
	Policies []Policy
	// Seeds counts the repetitions. Seed i draws the i-th set of arrivals, delays and jitter, the same for every policy.
	Seeds int
	// Workload makes the traffic of a seed.
	Workload func(seed uint64) (*Workload, error)
	// Parallel is how many runs go on at a time; 0 = as many as there are processors.
	Parallel int
	// Done is called after each run, from one goroutine at a time.
	Done func(r *Result, done, total int)
}

// Compare carries out a plan. Results are in the order fleets, policies, seeds, however many run at a time.
func Compare(p Plan) ([]*Result, error) {
	jobs := p.jobs()
	results, errs := make([]*Result, len(jobs)), make([]error, len(jobs))
	workloads, err := p.workloads()
	if err != nil {
		return nil, err
	}
	workers := p.Parallel
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		next int
		done int
	)
	for range min(workers, len(jobs)) {
		wg.Go(func() {
			for {
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				if i >= len(jobs) {
					return
				}
				results[i], errs[i] = Run(jobs[i], workloads[int(jobs[i].Seed)-1])
				mu.Lock()
				if done++; errs[i] == nil && p.Done != nil {
					p.Done(results[i], done, len(jobs))
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			return nil, fmt.Errorf("%s on %s: %w", jobs[i].Policy.Name, jobs[i].Fleet, err)
		}
	}
	return results, nil
}

func (p *Plan) jobs() (jobs []Config) {
	for _, f := range p.Fleets {
		for _, policy := range p.Policies {
			for seed := range max(p.Seeds, 1) {
				c := p.Config
				c.Fleet, c.Policy, c.Seed = f, policy, uint64(seed)+1
				jobs = append(jobs, c)
			}
		}
	}
	return jobs
}

func (p *Plan) workloads() ([]*Workload, error) {
	ws := make([]*Workload, max(p.Seeds, 1))
	for i := range ws {
		w, err := p.Workload(uint64(i) + 1)
		if err != nil {
			return nil, err
		}
		ws[i] = w
	}
	return ws, nil
}
