package strategy

import (
	"runtime"
	"testing"
	"weak"

	"lbd/balancer"
)

// A strategy that nobody asks any more keeps no poll: from a poll all later epochs are
// reached, one for each poll and replica, for as long as the model has no request.
func TestNoPollIsKept(t *testing.T) {
	forEach(t, func(t *testing.T, e Entry) {
		rs := replicas(t, 1, 1)
		for _, r := range rs {
			full(r, 3, 10_000)
		}
		m := balancer.Model{Name: "m", Picker: e.New(seeded(1)), Replicas: rs, Available: rs}
		for range 8 {
			v, err := m.Pick(&balancer.Request{Prompt: words(2000, 1), PromptTokens: 500, OutputTokens: 10, Stream: true, Now: msec(0)}, nil)
			if err != nil {
				t.Fatal(err)
			}
			v.FirstByte()
			v.FirstToken(msec(5))
			v.End(balancer.Finished, msec(9))
		}
		var old []weak.Pointer[balancer.Polled]
		for _, r := range rs {
			old = append(old, weak.Make(r.Polled()))
			full(r, 3, 10_000)
		}
		for range 3 { // what lies in a sync.Pool lives through one
			runtime.GC()
		}
		for i, w := range old {
			if w.Value() != nil {
				t.Errorf("replica %d: a poll that was replaced is still held", i)
			}
		}
		runtime.KeepAlive(m)
	})
}
