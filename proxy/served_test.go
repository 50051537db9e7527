package proxy

import (
	"fmt"
	"strings"
	"testing"

	"lbd/balancer"
)

// Servers of LoRA adapters list thousands of models: a misspelt name is not answered with
// hundreds of kilobytes.
func TestErrorsNameSomeOfManyModels(t *testing.T) {
	var many []*balancer.Model
	for i := range 5000 {
		many = append(many, &balancer.Model{Name: fmt.Sprintf("adapters/of-some-customer/number-%04d", i), Aliases: []string{fmt.Sprint("a", i)}})
	}
	snap := balancer.NewSnapshot(1, nil, many)
	for _, e := range []*apiError{modelNotFound(snap, []byte("x")), modelRequired(snap)} {
		if len(e.message) > 2*maxServed || !strings.Contains(e.message, many[0].Name) {
			t.Errorf("%s: %d bytes: %.200q", e.code, len(e.message), e.message)
		}
		// One comma is that of "more, which".
		if named := strings.Count(e.message, ", "); !strings.Contains(e.message, fmt.Sprintf(" and %d more, which /v1/models lists", 10_000-named)) {
			t.Errorf("%s does not say how many it leaves out: %q", e.code, e.message[len(e.message)-200:])
		}
	}
	if got := servedNames(balancer.NewSnapshot(1, nil, many[:2])); got != many[0].Name+", a0, "+many[1].Name+", a1" {
		t.Errorf("%q", got)
	}
}

// A single name may be as long as a path.
func TestErrorsNameNoEndlessModel(t *testing.T) {
	long := &balancer.Model{Name: strings.Repeat("x", 2*maxServed)}
	if got := servedNames(balancer.NewSnapshot(1, nil, []*balancer.Model{long, {Name: "m"}})); got != "m and 1 more, which /v1/models lists" {
		t.Errorf("%.100q", got)
	}
}
