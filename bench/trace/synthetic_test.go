package trace

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseLengths(t *testing.T) {
	tests := []struct {
		in   string
		want Lengths
	}{
		{"512", Lengths{Min: 512, Max: 512}},
		{"100..2000", Lengths{Min: 100, Max: 2000}},
		{"lognormal:512,0.8", Lengths{Min: 1, Max: 131072, Median: 512, Sigma: .8}},
		{"lognormal:512,0.8,16..4096", Lengths{Min: 16, Max: 4096, Median: 512, Sigma: .8}},
	}
	for _, tt := range tests {
		got, err := ParseLengths(tt.in)
		if err != nil || got != tt.want {
			t.Errorf("%q: %+v, %v; want %+v", tt.in, got, err, tt.want)
		}
	}
	for in, want := range map[string]string{
		"":                       "no whole number",
		"x":                      `"x" is no whole number`,
		"0":                      "want 1 <= low",
		"5..4":                   "bounds 5..4",
		"1..99999999999":         "want 1 <= low <= high <=",
		"lognormal:512":          "no sigma",
		"lognormal:x,1":          "median",
		"lognormal:0,1":          "median 0 is below 1",
		"lognormal:NaN,1":        "median NaN",
		"lognormal:1e99,1":       "median 1e+99",
		"lognormal:512,-1":       "sigma -1",
		"lognormal:512,1,9..10x": `"10x" is no whole number`,
	} {
		if _, err := ParseLengths(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want one with %q", in, err, want)
		}
	}
}

// Whatever parses is drawn within its bounds and prints as it was read.
func FuzzParseLengths(f *testing.F) {
	for _, s := range []string{"512", "100..2000", "lognormal:512,0.8", "lognormal:512,0.8,16..4096", "lognormal:1e3,1e1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLengths(s)
		if err != nil {
			return
		}
		r := rand.New(rand.NewPCG(1, 1))
		for range 20 {
			if n := l.Draw(r); n < l.Min || n > l.Max || n < 1 {
				t.Fatalf("%q drew %d", s, n)
			}
		}
		if again, err := ParseLengths(l.String()); err != nil || again != l {
			t.Errorf("%q prints as %q, which is %+v, %v", s, l, again, err)
		}
	})
}

func TestDraws(t *testing.T) {
	const n = 20000
	draw := func(s string) []int {
		l, err := ParseLengths(s)
		if err != nil {
			t.Fatal(err)
		}
		r := rand.New(rand.NewPCG(3, 1))
		all := make([]int, n)
		for i := range all {
			all[i] = l.Draw(r)
		}
		slices.Sort(all)
		return all
	}
	if all := draw("7"); all[0] != 7 || all[n-1] != 7 {
		t.Errorf("fixed: %d to %d", all[0], all[n-1])
	}
	if all := draw("10..19"); all[0] != 10 || all[n-1] != 19 || all[n/2] < 14 || all[n/2] > 15 {
		t.Errorf("uniform: %d to %d, median %d", all[0], all[n-1], all[n/2])
	}
	// The 84.13th percentile of exp(N(ln 500, 0.5²)) is 500·e^0.5 = 824.
	all := draw("lognormal:500,0.5,1..100000")
	if m, s := all[n/2], all[n*8413/10000]; m < 490 || m > 510 || s < 800 || s > 850 {
		t.Errorf("lognormal: median %d, want 500; +1 sigma %d, want 824", m, s)
	}
	if all := draw("lognormal:500,3,100..900"); all[0] != 100 || all[n-1] != 900 {
		t.Errorf("bounded lognormal: %d to %d", all[0], all[n-1])
	}
}

func TestMix(t *testing.T) {
	m, err := ParseMix([]string{"a/b=3", "c=x", "d"})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a/b", "c=x", "d"}, m.Names()); diff != "" {
		t.Error(diff)
	}
	r := rand.New(rand.NewPCG(1, 1))
	got := map[string]int{}
	for range 5000 {
		got[m.Draw(r)]++
	}
	// Weights 3, 1, 1: 3000, 1000, 1000; five standard deviations are 173, 141.
	if a, c, d := got["a/b"], got["c=x"], got["d"]; a < 2827 || a > 3173 || c < 859 || c > 1141 || a+c+d != 5000 {
		t.Errorf("%v", got)
	}
	for _, bad := range [][]string{{"a=0"}, {"a=-1"}, {"a=NaN"}, {"a=Inf"}, {""}, {"=1"}, {"a=1e308", "b=1e308"}} {
		if _, err := ParseMix(bad); err == nil {
			t.Errorf("%q: no error", bad)
		}
	}
	if name := (Mix{}).Draw(r); name != "" {
		t.Errorf("the empty mix drew %q", name)
	}
}

func TestOfModel(t *testing.T) {
	all := Of(0, Arrival{Model: "a", PromptTokens: 1}, Arrival{Model: "b"}, Arrival{}, Arrival{Model: "a", PromptTokens: 2})
	want := []Arrival{{Model: "a", PromptTokens: 1}, {Model: "a", PromptTokens: 2}}
	if diff := cmp.Diff(want, collect(t, all.OfModel("a"))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWithModels(t *testing.T) {
	mix, err := ParseMix([]string{"a", "b"})
	if err != nil {
		t.Fatal(err)
	}
	base := Of(0, Arrival{}, Arrival{Model: "own"}, Arrival{}, Arrival{}, Arrival{}, Arrival{}, Arrival{}, Arrival{})
	got := collect(t, base.WithModels(mix, 1))
	seen := map[string]int{}
	for _, a := range got {
		seen[a.Model]++
	}
	if got[1].Model != "own" || seen["a"] == 0 || seen["b"] == 0 || seen["a"]+seen["b"] != 7 {
		t.Errorf("%v", seen)
	}
	again := base.WithModels(mix, 1)
	for range 2 {
		if !cmp.Equal(got, collect(t, again)) {
			t.Error("the same seed gives other models")
		}
	}
}

func synthetic(t *testing.T, s Synthetic) []Arrival {
	t.Helper()
	tr, err := s.Trace()
	if err != nil {
		t.Fatal(err)
	}
	return collect(t, tr)
}

func TestSyntheticIsPoisson(t *testing.T) {
	s := Synthetic{Rate: 50, Duration: 200 * time.Second, Prompt: Fixed(100), Output: Fixed(10), Seed: 1}
	got := synthetic(t, s)
	// 10,000 expected; five standard deviations are 500.
	if len(got) < 9500 || len(got) > 10500 {
		t.Errorf("%d arrivals, want about 10000", len(got))
	}
	var sum, squares float64
	for i := 1; i < len(got); i++ {
		gap := (got[i].At - got[i-1].At).Seconds()
		if gap < 0 {
			t.Fatalf("arrival %d goes back in time", i)
		}
		sum += gap
		squares += gap * gap
	}
	n := float64(len(got) - 1)
	mean := sum / n
	if cv := math.Sqrt(squares/n-mean*mean) / mean; cv < .95 || cv > 1.05 {
		t.Errorf("coefficient of variation %v, want 1", cv)
	}
	if last := got[len(got)-1].At; last >= s.Duration {
		t.Errorf("arrival at %v, after the end", last)
	}
}

func TestSyntheticStreamsAreIndependent(t *testing.T) {
	mix, err := ParseMix([]string{"a", "b"})
	if err != nil {
		t.Fatal(err)
	}
	base := Synthetic{Rate: 10, Requests: 100, Prompt: Lengths{Min: 1, Max: 1000}, Output: Fixed(10), Seed: 1}
	other := base
	other.Prompt, other.Models = Lengths{Min: 1, Max: 50, Median: 20, Sigma: 1}, mix
	a, b := synthetic(t, base), synthetic(t, other)
	if diff := cmp.Diff(times(a), times(b)); diff != "" {
		t.Error("other lengths and models move the arrivals")
	}
	if diff := cmp.Diff(a, synthetic(t, base)); diff != "" {
		t.Error("the same seed gives another trace")
	}
	base.Seed = 2
	if cmp.Equal(times(a), times(synthetic(t, base))) {
		t.Error("another seed gives the same times")
	}
	models := map[string]int{}
	for _, x := range b {
		models[x.Model]++
	}
	if models["a"] == 0 || models["b"] == 0 || models["a"]+models["b"] != 100 {
		t.Errorf("%v", models)
	}
}

func TestSyntheticTenantsShareTheirPrefix(t *testing.T) {
	got := synthetic(t, Synthetic{Requests: 300, Prompt: Lengths{Min: 1, Max: 100}, Output: Fixed(1), Tenants: 3, TenantTokens: 70, Seed: 1})
	tenants := map[uint64]int{}
	own := map[uint64]bool{}
	for _, a := range got {
		// 70 tokens are 4 whole blocks of 16.
		if len(a.Blocks) != (a.PromptTokens+15)/16 || a.PromptTokens < 65 || a.At != 0 {
			t.Fatalf("%d blocks for %d tokens at %v", len(a.Blocks), a.PromptTokens, a.At)
		}
		tenants[a.Blocks[0]]++
		for i, id := range a.Blocks {
			if i < 4 && id != a.Blocks[0]+uint64(i) {
				t.Fatalf("prefix %v", a.Blocks[:4])
			}
			if i >= 4 && own[id] {
				t.Fatalf("block %d occurs twice", id)
			}
			own[id] = i >= 4
		}
	}
	if len(tenants) != 3 {
		t.Errorf("%d tenants, want 3", len(tenants))
	}
}

func TestSyntheticIsChecked(t *testing.T) {
	good := Synthetic{Rate: 1, Requests: 1, Prompt: Fixed(1), Output: Fixed(1)}
	for want, change := range map[string]func(*Synthetic){
		"rate -1":                    func(s *Synthetic) { s.Rate = -1 },
		"rate NaN":                   func(s *Synthetic) { s.Rate = math.NaN() },
		"rate 1e-09":                 func(s *Synthetic) { s.Rate = 1e-9 },
		"never ends":                 func(s *Synthetic) { s.Rate, s.Requests, s.Duration = 0, 0, time.Second },
		"requests -1":                func(s *Synthetic) { s.Requests = -1 },
		"-1 tenants":                 func(s *Synthetic) { s.Tenants = -1 },
		"prompt length: bounds 0..0": func(s *Synthetic) { s.Prompt = Lengths{} },
		"output length: bounds 0..0": func(s *Synthetic) { s.Output = Lengths{} },
	} {
		s := good
		change(&s)
		if _, err := s.Trace(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}
