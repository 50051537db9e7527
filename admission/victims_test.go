package admission

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// crowdedLine is a line of so many clients of low priority, with a request each, that is full in bytes.
func crowdedLine(clients int, bytes int64) (*line, bounds) {
	var l line
	for i := range clients {
		l.join(&waiter{client: fmt.Sprintf("client-%d", i), class: Low, cost: float64(100 + i%37), bytes: bytes/int64(clients) + int64(i%1000)})
	}
	return &l, bounds{2 * clients, l.bytes}
}

// What a request costs that comes to a full line: 5,000 clients with 512 MiB in all.
func BenchmarkVictims(b *testing.B) {
	const clients, queued = 5000, 512 << 20
	for _, c := range []struct {
		name  string
		bytes int64
		n     int // that the line may hold; 0 = plenty
		want  int
	}{
		{"one for its bytes", 50 << 10, 0, 1},
		{"many for their bytes", 64 << 20, 0, 620},
		{"one for its place", 1, clients, 1},
		{"none", 1 << 20, 0, -1},
	} {
		b.Run(c.name, func(b *testing.B) {
			l, most := crowdedLine(clients, queued)
			if c.n > 0 {
				most.n = c.n
			}
			w := &waiter{client: "new", class: Normal, cost: 1, bytes: c.bytes}
			if c.want < 0 {
				w.class = Low
			}
			for b.Loop() {
				out, ok := l.victims(w, most)
				if ok != (c.want > 0) || ok && c.want != len(out) {
					b.Fatal(len(out), ok)
				}
			}
		})
	}
}

func BenchmarkJoinAndLeave(b *testing.B) {
	for _, clients := range []int{10, 5000} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) {
			l, _ := crowdedLine(clients, 512<<20)
			w := &waiter{client: "client-3", class: Low, cost: 7, bytes: 9}
			b.ReportAllocs()
			for b.Loop() {
				l.join(w)
				l.leave(w)
			}
		})
	}
}

func BenchmarkAhead(b *testing.B) {
	l, _ := crowdedLine(5000, 512<<20)
	for b.Loop() {
		l.ahead("client-3", Low)
	}
}

// plainVictims is victims by looking at every client for every victim.
func plainVictims(l *line, w *waiter, most bounds) (out []*waiter, ok bool) {
	gone := map[*flow]int{}
	for n, held := l.n+1, l.bytes+w.bytes; n > most.n || held > most.bytes; n-- {
		in := inWork
		if n <= most.n {
			in = inBytes
		}
		v := plainGreediest(l, w, gone, in)
		if v == nil {
			return nil, false
		}
		out = append(out, v)
		gone[v.flow]++
		held -= v.bytes
	}
	return out, true
}

func plainGreediest(l *line, w *waiter, gone map[*flow]int, in measure) *waiter {
	for i := classes - 1; i >= w.class.lane(); i-- {
		var worst *flow
		most := 0.0
		for _, f := range l.lanes[i].flows {
			if len(f.waiters) == gone[f] {
				continue
			}
			holds := f.holds(gone[f], in)
			if worst == nil || holds > most || holds == most && f.client < worst.client {
				worst, most = f, holds
			}
		}
		if i == w.class.lane() && most <= l.lanes[i].flows[w.client].holds(0, in)+w.size(in) {
			return nil
		}
		if worst != nil {
			return worst.waiters[len(worst.waiters)-gone[worst]-1]
		}
	}
	return nil
}

// Whatever came and went, those are found that would be by looking at everybody.
func TestVictimsAsByLookingAtAll(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 2))
		var l line
		var in []*waiter
		some := func() *waiter {
			return &waiter{
				client: string(rune('a' + r.IntN(7))), class: []Class{High, Normal, Low}[r.IntN(3)],
				cost: float64(r.IntN(5)), bytes: int64(r.IntN(5)),
			}
		}
		for range 60 {
			switch n := r.IntN(4); {
			case n > 1 || len(in) == 0:
				w := some()
				l.join(w)
				in = append(in, w)
			default:
				i := r.IntN(len(in))
				if n == 0 {
					l.serve(in[i])
				} else {
					l.leave(in[i])
				}
				in = slices.Delete(in, i, i+1)
				l.forget()
			}
			w, most := some(), bounds{r.IntN(l.n + 2), r.Int64N(l.bytes + 6)}
			got, ok := l.victims(w, most)
			want, wantOK := plainVictims(&l, w, most)
			if ok != wantOK || !slices.Equal(got, want) {
				t.Fatalf("seed %d: %d victims, %t; want %d, %t", seed, len(got), ok, len(want), wantOK)
			}
		}
	}
}
