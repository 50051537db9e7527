package prefix

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// everyBlock is Match by reading every block, forgiving one in a row that is missing: what Match was before it halved, and
// what it is compared with.
func everyBlock(x *Index, hashes []uint64, d *Depths) (deepest int) {
	w := walk{index: x, table: *x.table.Load(), hashes: hashes, depths: new(Depths)}
	for i := range hashes {
		*w.depths = Depths{}
		w.read(i, 0)
		for id, n := range w.depths {
			if n > 0 && int(d[id])+1 >= i {
				d[id] = uint16(i + 1)
				deepest = i + 1
			}
		}
		if deepest+1 < i+1 {
			break
		}
	}
	return deepest
}

// tree makes prompts that go on from earlier ones, as conversations do, and credits owners with them.
func tree(x *Index, os []*Owner, rng *rand.Rand, n, most int) (prompts [][]uint64) {
	for range n {
		p := chain(rng, 1+rng.IntN(30))
		if len(prompts) > 0 && rng.IntN(6) > 0 {
			old := prompts[rng.IntN(len(prompts))]
			p = append(slices.Clone(old[:rng.IntN(len(old)+1)]), p...)
		}
		p = p[:min(len(p), most)]
		o := os[rng.IntN(len(os))]
		o.Advance(rng.Int64N(3000))
		x.Insert(o, p)
		prompts = append(prompts, p)
	}
	return prompts
}

// Where nothing is overwritten, halving finds what reading every block finds, whoever has how much of it, dead entries and
// restarts included.
func TestHalvingFindsWhatReadingAllFinds(t *testing.T) {
	for seed := range uint64(10) {
		rng := rand.New(rand.NewPCG(seed, 11))
		x := New(Config{Bytes: 16 << 20})
		os := owners(x, 40, 0)
		for _, o := range os {
			o.SetRoom(int64(20_000 << rng.IntN(8)))
		}
		prompts := tree(x, os, rng, 600, 300)
		os[3].Restart()
		for range 300 {
			ask := prompts[rng.IntN(len(prompts))]
			ask = append(slices.Clone(ask[:1+rng.IntN(len(ask))]), chain(rng, rng.IntN(50))...)
			var want, got Depths
			deepest := everyBlock(x, ask, &want)
			if n := x.Match(ask, &got); n != deepest || got != want {
				t.Fatalf("seed %d: %d deep of %d, want %d", seed, n, len(ask), deepest)
			}
		}
	}
}

// Where memory is short, halving knows as much as reading every block, within a twentieth.
func TestHalvingWithHoles(t *testing.T) {
	for _, n := range []int{400, 800, 3000} {
		rng := rand.New(rand.NewPCG(12, 12))
		x := New(Config{Bytes: 64 << 10})
		os := owners(x, 8, 1<<40)
		prompts := tree(x, os, rng, n, 60)
		all, halved := 0, 0
		for _, p := range prompts {
			var a, h Depths
			everyBlock(x, p, &a)
			x.Match(p, &h)
			for i := range a {
				all += int(a[i])
				halved += int(h[i])
			}
		}
		t.Logf("%d prompts: %d blocks known to who reads all, %d to who halves", n, all, halved)
		if halved*20 < all*19 {
			t.Errorf("%d prompts: %d blocks known, of %d", n, halved, all)
		}
	}
}
