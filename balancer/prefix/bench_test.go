package prefix

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
)

// million is an index that knows a million blocks of 64 replicas, and the prompts they belong to: 8,000 tokens, some 32 KB,
// are 44 blocks each; the first 16 are shared by every 50 of them, which so many replicas have.
func million(b *testing.B, holders int) (*Index, []*Owner, [][]uint64) {
	x, rng := New(Config{}), rand.New(rand.NewPCG(1, 1))
	os := owners(x, 64, 1<<40)
	var prompts [][]uint64
	var system []uint64
	var homes []int
	for n := 0; n < 1_000_000; {
		if len(prompts)%50 == 0 {
			system, homes = chain(rng, 16), rng.Perm(len(os))[:holders]
			n += 16
		}
		p := append(append([]uint64(nil), system...), chain(rng, 28)...)
		n += 28
		x.Insert(os[homes[rng.IntN(holders)]], p)
		prompts = append(prompts, p)
	}
	b.ReportAllocs()
	return x, os, prompts
}

func BenchmarkMatchMillion(b *testing.B) {
	for _, holders := range []int{4, 16, 64} {
		b.Run(fmt.Sprint(holders, "holders"), func(b *testing.B) {
			x, _, prompts := million(b, holders)
			rng := rand.New(rand.NewPCG(2, 1))
			found, asked := 0, 0
			for b.Loop() {
				var d Depths
				p := prompts[rng.IntN(len(prompts))]
				found += x.Match(p, &d)
				asked += len(p)
			}
			b.ReportMetric(float64(found)/float64(asked), "found")
		})
	}
}

func BenchmarkMatchNothing(b *testing.B) {
	x, _, _ := million(b, 4)
	p := chain(rand.New(rand.NewPCG(3, 1)), 44)
	for b.Loop() {
		var d Depths
		x.Match(p, &d)
	}
}

func BenchmarkInsertMillion(b *testing.B) {
	x, os, prompts := million(b, 4)
	rng := rand.New(rand.NewPCG(2, 1))
	for b.Loop() {
		i := rng.IntN(len(prompts))
		x.Insert(os[i/50%len(os)], prompts[i])
	}
}

func BenchmarkHash(b *testing.B) {
	for _, c := range []struct {
		name string
		n    int
	}{{"32KB", 32 << 10}, {"100KB", 100 << 10}} {
		b.Run(c.name, func(b *testing.B) {
			text := bytes.Repeat([]byte(`{"role":"user","content":"hello there"},`), c.n/40)
			h, dst := New(Config{}).Hasher("m"), make([]uint64, 0, MaxBlocks)
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				dst = h.Prompt(dst[:0], nil, text)
			}
		})
	}
}

// BenchmarkParallel matches and inserts on all processors at once, 8 to 1.
func BenchmarkParallel(b *testing.B) {
	x, os, prompts := million(b, 4)
	b.RunParallel(func(pb *testing.PB) {
		rng := rand.New(rand.NewPCG(rand.Uint64(), 1))
		for pb.Next() {
			p := prompts[rng.IntN(len(prompts))]
			if rng.IntN(8) == 0 {
				x.Insert(os[rng.IntN(len(os))], p)
				continue
			}
			var d Depths
			x.Match(p, &d)
		}
	})
}
