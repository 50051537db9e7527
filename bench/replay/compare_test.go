package replay

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// However many runs go on at a time, results come in the same order with the same bytes; the table has a row per policy
// and fleet.
func TestCompareInParallel(t *testing.T) {
	w := poisson(t, 30, 200)
	table := func(parallel int) (string, []*Result) {
		p := Plan{
			Config: Config{Warmup: .1}, Fleets: []Fleet{{{Count: 2}}, {{Count: 3}}}, Seeds: 2, Parallel: parallel,
			Policies: []Policy{shippedNamed(t, "cycle"), shippedNamed(t, "least-inflight")},
			Workload: func(uint64) (*Workload, error) { return w, nil },
		}
		done := 0
		p.Done = func(*Result, int, int) { done++ }
		results, err := Compare(p)
		if err != nil {
			t.Fatal(err)
		}
		if done != 8 {
			t.Errorf("%d runs told of, want 8", done)
		}
		var b bytes.Buffer
		if err := WriteTable(&b, results); err != nil {
			t.Fatal(err)
		}
		return b.String(), results
	}
	one, results := table(1)
	four, _ := table(4)
	if diff := cmp.Diff(one, four); diff != "" {
		t.Errorf("the table depends on how many run at a time:\n%s", diff)
	}
	if n := bytes.Count([]byte(one), []byte("\n")); n != 5 {
		t.Errorf("%d lines, want a head and four rows:\n%s", n, one)
	}
	for i, want := range []string{"cycle 2 1", "cycle 2 2", "least-inflight 2 1", "least-inflight 2 2", "cycle 3 1"} {
		if got := fmt.Sprint(results[i].Policy, " ", results[i].Replicas, " ", results[i].Seed); got != want {
			t.Errorf("result %d is of %s, want %s", i, got, want)
		}
	}
	if a, b := results[0], results[1]; a.Seed == b.Seed || a.E2E == b.E2E {
		t.Error("two seeds give the same run")
	}
}
