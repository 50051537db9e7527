package affinity

import (
	"fmt"
	"testing"
	"time"

	"lbd/balancer"
)

// scene is n replicas, each with a little load and a poll, and a session that is at home.
func scene(tb testing.TB, home string, n int) (*site, *balancer.Request) {
	s := newSite(tb, Config{Home: home}, n)
	for i := range n {
		s.busy(i, 9)
		s.polled(i, balancer.Sample{Waiting: balancer.Known(0), Running: balancer.Known(9), KVUsage: balancer.Known(.5)})
	}
	q := &balancer.Request{Model: "m", Session: s.named("a"), Now: time.Now()}
	s.place(tb, q.Session, q.Now, n-1)
	return s, q
}

func TestPickAllocatesNothing(t *testing.T) {
	for _, home := range []string{ByStrategy, ByHash} {
		s, q := scene(t, home, 16)
		if n := testing.AllocsPerRun(100, func() {
			v, err := s.model.Pick(q, nil)
			if err != nil {
				t.Fatal(err)
			}
			v.Done()
		}); n != 0 {
			t.Errorf("%s: %g allocations", home, n)
		}
		name := []byte("somebody@example.org")
		if n := testing.AllocsPerRun(100, func() { s.Session("m", "ci", name) }); n != 0 {
			t.Errorf("%s: %g allocations for a session's hash", home, n)
		}
		if n := testing.AllocsPerRun(100, func() { s.Learn(name, s.replicas[0], "m", q.Now) }); n != 0 {
			t.Errorf("%g allocations to learn a response", n)
		}
	}
}

// What a pick costs with affinity: none is the strategy alone (it takes the first), off a request without a session.
func BenchmarkPick(b *testing.B) {
	for _, n := range []int{8, 64} {
		for _, kind := range []string{"none", "off", ByStrategy, ByHash} {
			b.Run(fmt.Sprintf("%s/%d", kind, n), func(b *testing.B) {
				home := kind
				if kind == "none" || kind == "off" {
					home = ByStrategy
				}
				s, q := scene(b, home, n)
				switch kind {
				case "none":
					s.model.Picker = first{}
				case "off":
					q.Session = 0
				}
				b.ReportAllocs()
				for b.Loop() {
					v, _ := s.model.Pick(q, nil)
					v.Done()
				}
			})
		}
	}
}

func BenchmarkSession(b *testing.B) {
	for _, home := range []string{ByStrategy, ByHash} {
		h := New(Options{Config: Config{Home: home}})
		name := []byte("3f0c2a7e-52a0-4b0e-8a06-7a1a4c6f2b11")
		b.Run(home, func(b *testing.B) {
			for b.Loop() {
				h.Session("meta-llama/Llama-3.1-8B-Instruct", "ci", name)
			}
		})
	}
}
