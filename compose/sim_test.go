package compose

import (
	"slices"
	"strings"
	"testing"
)

// simulated is one environment of sim.yml.
type simulated struct {
	name, profile string
	ports         []string
}

// Behind each lbd of sim.yml are the replicas of the environment it simulates,
// under the names they have there.
func TestSimulatedReplicas(t *testing.T) {
	p := load(t, "sim.yml")
	for _, e := range []simulated{
		{"baseline", "v0.6.4", []string{"8001", "8002", "8003", "8004", "8005", "8006"}},
		{"managed", "v0.19", []string{"8011", "8012", "8013", "8014", "8015", "8016"}},
	} {
		for i, r := range six {
			s := service(t, p, e.name+"-"+r.name)
			confined(t, "sim.yml", s)
			if s.ContainerName != s.Name || s.Image != "lbd:local" {
				t.Errorf("%s: container name %q, image %q", s.Name, s.ContainerName, s.Image)
			}
			words, set := flags(s.Command)
			if !slices.Equal(words, []string{"sim"}) || set["--profile"] != e.profile || set["--model"] != r.model || set["--listen"] != "0.0.0.0:8000" {
				t.Errorf("%s: command %q", s.Name, s.Command)
			}
			if got, want := published(s), []string{e.ports[i] + ":8000"}; !slices.Equal(got, want) {
				t.Errorf("%s: ports %q; want %q", s.Name, got, want)
			}
			if n := s.Networks[e.name]; n == nil || len(s.Networks) != 1 || !slices.Equal(n.Aliases, []string{r.name}) {
				t.Errorf("%s: networks %v; want %s, as %s", s.Name, s.Networks, e.name, r.name)
			}
			if gpus(t, s) != nil || len(s.Environment) > 0 {
				t.Errorf("%s: a simulated replica needs no GPU and no variables", s.Name)
			}
		}
		if n := service(t, p, e.name+"-lb").Networks; len(n) != 1 {
			t.Errorf("%s-lb is on networks %v; want its own alone", e.name, n)
		}
	}
	if n := len(p.Services); n != 2*len(six)+4 {
		t.Errorf("%d services: %q", n, p.ServiceNames())
	}
}

func TestSimulationCanBeHurried(t *testing.T) {
	p := load(t, "sim.yml", "SIM_SPEED=4", "SIM_LOAD_TIME=30s")
	for name, s := range p.Services {
		if _, set := flags(s.Command); strings.Contains(name, "vllm-") && (set["--speed"] != "4" || set["--load-time"] != "30s") {
			t.Errorf("%s: command %q", name, s.Command)
		}
	}
}
