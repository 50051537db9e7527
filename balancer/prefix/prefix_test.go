package prefix

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"unsafe"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func chain(rng *rand.Rand, n int) []uint64 {
	hashes := make([]uint64, n)
	for i := range hashes {
		hashes[i] = rng.Uint64()
	}
	return hashes
}

func owners(x *Index, n int, room int64) []*Owner {
	os := make([]*Owner, n)
	for i := range os {
		os[i] = x.Owner(fmt.Sprint("r", i))
		os[i].SetRoom(room)
	}
	return os
}

func depths(x *Index, hashes []uint64, os []*Owner) []int {
	var d Depths
	deepest := x.Match(hashes, &d)
	got := make([]int, len(os))
	for i, o := range os {
		got[i] = int(d[o.ID()])
	}
	if len(os) > 0 && slices.Max(got) > deepest {
		panic("deepest is not the deepest")
	}
	return got
}

func TestMatchFindsTheLongestPrefix(t *testing.T) {
	x, rng := New(Config{}), rand.New(rand.NewPCG(1, 1))
	os := owners(x, 3, 1<<20)
	system := chain(rng, 5)
	a, b := append(slices.Clone(system), chain(rng, 20)...), append(slices.Clone(system), chain(rng, 30)...)
	if got := depths(x, a, os); !slices.Equal(got, []int{0, 0, 0}) {
		t.Errorf("an empty index knows %v", got)
	}
	x.Insert(os[0], a)
	x.Insert(os[1], b)
	for _, c := range []struct {
		hashes []uint64
		want   []int
	}{
		{a, []int{25, 5, 0}},
		{b, []int{5, 35, 0}},
		{system, []int{5, 5, 0}},
		{append(slices.Clone(a), chain(rng, 7)...), []int{25, 5, 0}},
		{a[:12], []int{12, 5, 0}},
		{chain(rng, 9), []int{0, 0, 0}},
		{nil, []int{0, 0, 0}},
	} {
		if got := depths(x, c.hashes, os); !slices.Equal(got, c.want) {
			t.Errorf("%d blocks: depths %v, want %v", len(c.hashes), got, c.want)
		}
	}
}

// An entry lives until the replica has computed as much as it can hold, and a hit makes it new.
func TestLivesAsLongAsTheCacheHolds(t *testing.T) {
	x, rng := New(Config{}), rand.New(rand.NewPCG(2, 1))
	os := owners(x, 1, 16_000) // kvcached
	a := chain(rng, 10)
	x.Insert(os[0], a)
	os[0].Advance(15_900)
	if got := depths(x, a, os); got[0] != 10 {
		t.Fatalf("depth %d of a prefix that still fits", got[0])
	}
	x.Insert(os[0], a)
	os[0].Advance(15_900)
	if got := depths(x, a, os); got[0] != 10 {
		t.Fatalf("depth %d of a prefix that was used again", got[0])
	}
	os[0].Advance(200)
	if got := depths(x, a, os); got[0] != 0 {
		t.Fatalf("depth %d of a prefix that was pushed out", got[0])
	}
	x.Insert(os[0], a)
	os[0].SetRoom(0)
	if got := depths(x, a, os); got[0] != 0 {
		t.Fatalf("depth %d in a replica without a cache", got[0])
	}
}

func TestRestartForgets(t *testing.T) {
	x, rng := New(Config{}), rand.New(rand.NewPCG(3, 1))
	os := owners(x, 2, 1<<20)
	a, b := chain(rng, 10), chain(rng, 10)
	for _, o := range os {
		x.Insert(o, a)
	}
	os[0].Restart()
	x.Insert(os[0], b)
	if got := depths(x, a, os); !slices.Equal(got, []int{0, 10}) {
		t.Errorf("depths %v after a restart of the first", got)
	}
	if got := depths(x, b, os); !slices.Equal(got, []int{10, 0}) {
		t.Errorf("depths %v of what came after the restart", got)
	}
}

func TestOwnersComeAndGo(t *testing.T) {
	x, rng := New(Config{}), rand.New(rand.NewPCG(4, 1))
	a := chain(rng, 10)
	first := x.Owner("a")
	first.SetRoom(1 << 20)
	if x.Owner("a") != first {
		t.Fatal("one name, two owners")
	}
	x.Insert(first, a)
	x.Release(first)
	if got := depths(x, a, []*Owner{first}); got[0] != 10 {
		t.Error("an owner that is still used has forgotten")
	}
	x.Release(first)
	heir := x.Owner("b") // takes the id
	heir.SetRoom(1 << 20)
	if got := depths(x, a, []*Owner{heir}); heir.ID() == first.ID() && got[0] != 0 {
		t.Error("an owner has inherited another's blocks")
	}
	var all []*Owner
	for i := range MaxOwners - 1 {
		all = append(all, x.Owner(fmt.Sprint(i)))
	}
	if slices.Contains(all, nil) || x.Owner("one too many") != nil {
		t.Errorf("not exactly %d owners", MaxOwners)
	}
}

// What every replica has is known of every replica.
func TestManyHolders(t *testing.T) {
	x, rng := New(Config{}), rand.New(rand.NewPCG(5, 1))
	os := owners(x, 100, 1<<20)
	system := chain(rng, 8)
	for _, o := range os {
		x.Insert(o, system)
	}
	known := 0
	for _, d := range depths(x, system, os) {
		if d == len(system) {
			known++
		}
	}
	if known != len(os) {
		t.Errorf("%d of %d holders are known", known, len(os))
	}
}

// reference is what an index would be with all memory in the world.
type reference map[uint64]map[*Owner]int64 // clock at the last insert

func (r reference) depth(hashes []uint64, o *Owner, clock, room int64) int {
	for i, h := range hashes {
		at, ok := r[h][o]
		if !ok || clock>>unitShift-at>>unitShift >= room>>unitShift {
			return i
		}
	}
	return len(hashes)
}

// With room for all, the index knows exactly what the reference knows.
func TestAgreesWithTheReference(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 7))
		x, ref := New(Config{}), reference{}
		rooms := []int64{16_000, 160_000, 1 << 22}
		os := owners(x, 12, 0)
		clocks := make([]int64, len(os))
		for i, o := range os {
			o.SetRoom(rooms[i%len(rooms)])
		}
		var prompts [][]uint64
		for range 3000 {
			hashes := chain(rng, 1+rng.IntN(12))
			if len(prompts) > 0 && rng.IntN(4) > 0 { // most go on from an earlier one
				old := prompts[rng.IntN(len(prompts))]
				hashes = append(slices.Clone(old[:rng.IntN(len(old)+1)]), hashes...)
			}
			hashes = hashes[:min(len(hashes), 60)]
			prompts = append(prompts, hashes)
			i := rng.IntN(len(os))
			n := rng.Int64N(3000)
			os[i].Advance(n)
			clocks[i] += n
			x.Insert(os[i], hashes)
			for _, h := range hashes {
				if ref[h] == nil {
					ref[h] = map[*Owner]int64{}
				}
				ref[h][os[i]] = clocks[i]
			}
			ask := prompts[rng.IntN(len(prompts))]
			for j, got := range depths(x, ask, os) {
				// The clock of an owner starts at what Restart made it.
				if want := ref.depth(ask, os[j], clocks[j], rooms[j%len(rooms)]); got != want {
					t.Fatalf("seed %d: depth %d at owner %d, want %d of %d", seed, got, j, want, len(ask))
				}
			}
		}
	}
}

// When memory is short, knowledge is lost, nothing is made up: no depth exceeds the reference, and what was inserted last
// is known.
func TestLossIsOneSided(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	x, ref := New(Config{Bytes: 64 << 10}), reference{}
	os := owners(x, 8, 1<<40)
	var prompts [][]uint64
	lost, fresh := 0, 0
	const rounds = 4000
	for range rounds {
		hashes := chain(rng, 40)
		prompts = append(prompts, hashes)
		o := os[rng.IntN(len(os))]
		o.Advance(10_000)
		x.Insert(o, hashes)
		for _, h := range hashes {
			ref[h] = map[*Owner]int64{o: 0}
		}
		if got := depths(x, hashes, []*Owner{o}); got[0] == len(hashes) {
			fresh++
		}
		ask := prompts[rng.IntN(len(prompts))]
		for j, got := range depths(x, ask, os) {
			want := ref.depth(ask, os[j], 0, 1<<40)
			if got > want {
				t.Fatalf("depth %d, want at most %d", got, want)
			}
			if got < want {
				lost++
			}
		}
	}
	if fresh < rounds*99/100 {
		t.Errorf("%d of %d were known right after they were inserted", fresh, rounds)
	}
	if lost < rounds/2 {
		t.Errorf("%d lost: the table was not short of memory", lost)
	}
}

func TestTrustFollowsObservation(t *testing.T) {
	x := New(Config{})
	o := x.Owner("a")
	o.SetRoom(100_000)
	for range 30 {
		o.Observe(8000, 0) // e^-0.1 each
	}
	if o.Room() > 10_000 {
		t.Errorf("room %d after 30 prefixes that were not there", o.Room())
	}
	for range 600 {
		o.Observe(8000, 8600)
	}
	if o.Room() < 100_000 || o.Trust() > maxTrust {
		t.Errorf("room %d, trust %v after 600 that were", o.Room(), o.Trust())
	}
	before := o.Trust()
	o.Observe(8000, 7900)
	o.Observe(0, 0)
	if o.Trust() != before {
		t.Error("a difference within the estimate's error changed trust")
	}
}

func TestPromptBlocks(t *testing.T) {
	h := New(Config{}).Hasher("m")
	text := bytes.Repeat([]byte("all work and no play makes jack a dull boy "), 400)
	for _, n := range []int{0, 255, 256, 300, 4096, 4096 + 1023, 4096 + 1024, 10_000} {
		got := h.Prompt(nil, nil, text[:n])
		want := 0
		for BlockBytes(want+1) <= len(open(text[:n])) {
			want++
		}
		if len(got) != want {
			t.Errorf("%d bytes: %d blocks, want %d", n, len(got), want)
		}
		if long := h.Prompt(nil, nil, text); !slices.Equal(got, long[:len(got)]) {
			t.Errorf("%d bytes: not the blocks of the longer text", n)
		}
	}
	if got := h.Prompt(nil, nil, make([]byte, 4<<20)); len(got) != MaxBlocks {
		t.Errorf("%d blocks of 4 MiB, want %d", len(got), MaxBlocks)
	}
	x := New(Config{})
	a := x.Hasher("a").Prompt(nil, nil, text)
	for name, b := range map[string][]uint64{
		"another model":    x.Hasher("b").Prompt(nil, nil, text),
		"another preamble": x.Hasher("a").Prompt(nil, []byte(`[{"type":"function"}]`), text),
		"another process":  New(Config{}).Hasher("a").Prompt(nil, nil, text),
		"another start":    x.Hasher("a").Prompt(nil, nil, append([]byte("x"), text...)),
	} {
		if a[0] == b[0] {
			t.Errorf("%s has the same first block", name)
		}
	}
	if got := h.Blocks(nil, make([]uint64, 2000)); len(got) != MaxBlocks {
		t.Errorf("%d blocks of 2000", len(got))
	}
}

// A conversation that grows keeps the blocks of all earlier turns, wherever they end.
func TestConversationsGrow(t *testing.T) {
	h := New(Config{}).Hasher("m")
	body, last := `[{"role":"system","content":"You are helpful."}`, []uint64(nil)
	for turn := range 60 {
		body += fmt.Sprintf(`,{"role":"user","content":"%s"}`, bytes.Repeat([]byte{byte('a' + turn%26)}, 97*turn%700))
		got := h.Prompt(nil, nil, []byte(body+"]"))
		if len(got) < len(last) || !slices.Equal(got[:len(last)], last) {
			t.Fatalf("turn %d lost blocks of the turn before", turn)
		}
		last = got
	}
}

func TestNoAllocations(t *testing.T) {
	x, rng := New(Config{}), rand.New(rand.NewPCG(9, 1))
	os := owners(x, 4, 1<<20)
	text := bytes.Repeat([]byte("x y z "), 5000)
	h, buf := x.Hasher("m"), make([]uint64, 0, MaxBlocks)
	hashes := chain(rng, 40)
	x.Insert(os[0], hashes)
	var d Depths
	if n := testing.AllocsPerRun(100, func() {
		buf = h.Prompt(buf[:0], nil, text)
		clear(d[:])
		x.Match(hashes, &d)
		x.Insert(os[1], hashes)
	}); n != 0 {
		t.Errorf("%v allocations, want 0", n)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	if s := unsafe.Sizeof(line{}); s != lineBytes {
		t.Errorf("a line is %d bytes, want %d", s, lineBytes)
	}
	if s := unsafe.Sizeof(Owner{}); s != 64 {
		t.Errorf("an owner is %d bytes, want a cache line", s)
	}
	for _, c := range []struct{ bytes, want int }{{0, 64 << 20}, {64 << 20, 64 << 20}, {100 << 20, 64 << 20}, {1, maxLines * lineBytes}} {
		x := New(Config{Bytes: c.bytes})
		if got := x.lines * lineBytes; got != c.want {
			t.Errorf("%d bytes asked, %d taken, want %d", c.bytes, got, c.want)
		}
	}
}

// Everything at once, with -race; what is found is something that was inserted.
func TestConcurrent(t *testing.T) {
	x := New(Config{Bytes: 1 << 16})
	os := owners(x, 8, 1<<18)
	var wg sync.WaitGroup
	for g := range uint64(4) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(10, g))
			var prompts [][]uint64
			for range 3000 {
				prompts = append(prompts, chain(rng, 1+rng.IntN(20)))
				o := os[rng.IntN(len(os))]
				o.Advance(rng.Int64N(5000))
				x.Insert(o, prompts[len(prompts)-1])
				o.Observe(rng.Int64N(5000), rng.Int64N(5000))
				if rng.IntN(100) == 0 {
					o.Restart()
				}
				ask := prompts[rng.IntN(len(prompts))]
				for i, d := range depths(x, ask, os) {
					if d > len(ask) {
						t.Errorf("depth %d at %d of %d blocks", d, i, len(ask))
					}
				}
				extra := x.Owner("come and go")
				x.Insert(extra, ask)
				x.Release(extra)
			}
		})
	}
	wg.Wait()
}

// Whatever bytes come: equal prefixes have equal blocks, and nothing else has.
func FuzzPrompt(f *testing.F) {
	long := bytes.Repeat([]byte(`{"role":"user","content":"hi"},`), 300)
	f.Add([]byte(`[{"role":"user","content":"hello"}]`), []byte(`"text"`), 10)
	f.Add(long, long[:5000], 4990)
	f.Add([]byte("]]]   "), []byte("\"\""), 0)
	f.Add(append(long[:4096:4096], ']'), append(long[:4096:4096], ",{}]"...), 4096)
	h := New(Config{}).Hasher("m")
	f.Fuzz(func(t *testing.T, a, b []byte, cut int) {
		if cut >= 0 && cut <= len(a) {
			b = append(a[:cut:cut], b...)
		}
		ha, hb := h.Prompt(nil, nil, a), h.Prompt(nil, nil, b)
		oa, ob := open(a), open(b)
		if len(ha) < MaxBlocks && BlockBytes(len(ha)+1) <= len(oa) || BlockBytes(len(ha)) > len(oa) {
			t.Fatalf("%d blocks of %d bytes", len(ha), len(oa))
		}
		common := 0
		for common < len(oa) && common < len(ob) && oa[common] == ob[common] {
			common++
		}
		for i := range min(len(ha), len(hb)) {
			if (ha[i] == hb[i]) != (BlockBytes(i+1) <= common) {
				t.Fatalf("block %d: equal %v, %d bytes in common", i, ha[i] == hb[i], common)
			}
		}
	})
}
