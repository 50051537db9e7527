package engine

import (
	"math"
	"testing"
	"time"
)

func mustPreset(t testing.TB, name string) Preset {
	t.Helper()
	p, err := PresetNamed(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The published table of the model for Llama-3.1-8B on one H100, in ms.
func TestStepTimeTable(t *testing.T) {
	p := mustPreset(t, "llama-3.1-8b")
	decode := func(b, kv int) Shape { return Shape{Sequences: b, Tokens: b, Decodes: b, KVTokens: b * kv} }
	prefill := func(x int) Shape {
		return Shape{Sequences: 1, Tokens: x, Pairs: float64(x) * float64(x) / 2}
	}
	for _, tc := range []struct {
		name  string
		shape Shape
		want  float64
		digit float64 // last digit the table gives
	}{
		{"decode 1 x 1000", decode(1, 1000), 7.4, .1},
		{"decode 10 x 300", decode(10, 300), 7.9, .1},
		{"decode 32 x 1000", decode(32, 1000), 10.4, .1},
		{"decode 64 x 1000", decode(64, 1000), 13.5, .1},
		{"decode 128 x 1000", decode(128, 1000), 19.0, .1},
		{"decode 230 x 300", decode(230, 300), 21.2, .1},
		{"decode 256 x 1000", decode(256, 1000), 30.7, .1},
		{"prefill 512", prefill(512), 13.0, .1},
		{"prefill 1024", prefill(1024), 22.6, .1},
		{"prefill 2048", prefill(2048), 45.3, .1},
		{"prefill 4096", prefill(4096), 90.1, .1},
		{"prefill 8192", prefill(8192), 205, 1},
	} {
		got := p.stepMS(ProfileV1, tc.shape)
		if math.Abs(got-tc.want) > tc.digit/2 {
			t.Errorf("%s: %.3f ms, want %g", tc.name, got, tc.want)
		}
	}
}

func TestV0StepIsGPUPartPlusCPU(t *testing.T) {
	p := mustPreset(t, "llama-3.1-8b")
	s := Shape{Sequences: 256, Tokens: 256, Decodes: 256, KVTokens: 256 * 300}
	cpu := p.StepTime(ProfileV0, s) - p.StepTime(ProfileV1, s)
	want := time.Duration((5 + .13*256 - 1.2 - .036*256) * float64(time.Millisecond))
	if d := cpu - want; d < -time.Microsecond || d > time.Microsecond {
		t.Errorf("V0 - V1 = %v, want %v", cpu, want)
	}
}

func TestLinearInterpolatesAndExtends(t *testing.T) {
	p := mustPreset(t, "mixtral-8x7b-tp2")
	for m, want := range map[int]float64{1: 5.5, 8: 16.6, 36: 17.9, 256: 23.6, 8192: 198, 9192: 222} {
		if got := p.linear(m); math.Abs(got-want) > 1e-9 {
			t.Errorf("Lin(%d) = %g, want %g", m, got, want)
		}
	}
	for _, p := range Presets() {
		for m := 1; m < 20000; m += 7 {
			if p.linear(m+7) < p.linear(m) {
				t.Fatalf("%s: Lin falls between %d and %d", p.Name, m, m+7)
			}
		}
	}
}

func TestPresetFor(t *testing.T) {
	for served, want := range map[string]string{
		"meta-llama/Llama-3.1-8B-Instruct":      "llama-3.1-8b",
		"meta-llama/Meta-Llama-3-8B":            "llama-3.1-8b",
		"Qwen/Qwen2.5-7B-Instruct":              "qwen2.5-7b",
		"mistralai/Mixtral-8x7B-Instruct-v0.1":  "mixtral-8x7b-tp2",
		"llama-3.1-8b-tp2":                      "llama-3.1-8b-tp2",
		"openai/gpt-oss-120b":                   "",
		"mistralai/Mixtral-8x22B-Instruct-v0.1": "",
	} {
		p, ok := PresetFor(served)
		if p.Name != want || ok != (want != "") {
			t.Errorf("PresetFor(%q) = %q %v, want %q", served, p.Name, ok, want)
		}
	}
}

// A preset on the same hardware is the same preset; on half of it GPU time doubles and CPU time stays.
func TestScaled(t *testing.T) {
	p := mustPreset(t, "llama-3.1-8b")
	same, half := p.Scaled("same", 1, 1), p.Scaled("half", .5, .5)
	for m := 1; m < 10000; m = m*2 + 1 {
		s := Shape{Sequences: m / 2, Tokens: m, Decodes: m / 2, KVTokens: 400 * m, Pairs: float64(m)}
		full := p.gpuMS(s) - p.DecodeUS/1e3*float64(s.Decodes)
		if got := same.gpuMS(s) - p.DecodeUS/1e3*float64(s.Decodes); math.Abs(got-full) > 1e-9 {
			t.Errorf("m=%d same hardware: %g, want %g", m, got, full)
		}
		if got := half.gpuMS(s) - p.DecodeUS/1e3*float64(s.Decodes); math.Abs(got-2*full) > 1e-9 {
			t.Errorf("m=%d half hardware: %g, want %g", m, got, 2*full)
		}
	}
	// Less compute alone leaves decode steps where they are.
	slow := p.Scaled("slow", .5, 1)
	if slow.linear(64) != p.linear(64) || slow.linear(4096) < 1.9*p.linear(4096) {
		t.Errorf("half compute: Lin(64) %g, Lin(4096) %g", slow.linear(64), slow.linear(4096))
	}
}

func TestFrontEnd(t *testing.T) {
	if got, want := FrontEnd(0, 0), 2*time.Millisecond; got != want {
		t.Errorf("FrontEnd(0, 0) = %v, want %v", got, want)
	}
	if got, want := FrontEnd(40000, .5), 13500*time.Microsecond; got != want {
		t.Errorf("FrontEnd(40000, .5) = %v, want %v", got, want)
	}
	if got, want := StreamTime(100), 4600*time.Microsecond; got != want {
		t.Errorf("StreamTime(100) = %v, want %v", got, want)
	}
}

// Jitter has mean 1 and the configured spread; a negative sigma is none.
func TestJitter(t *testing.T) {
	e := start(t, Config{})
	const n = 20000
	sum, squares := 0.0, 0.0
	for range n {
		j := e.jitter()
		sum += j
		squares += math.Log(j) * math.Log(j)
	}
	if mean := sum / n; math.Abs(mean-1) > .001 {
		t.Errorf("mean %.5f, want 1", mean)
	}
	if sigma := math.Sqrt(squares / n); math.Abs(sigma-.05) > .001 {
		t.Errorf("sigma %.5f, want 0.05", sigma)
	}
	if j := start(t, steady(Config{})).jitter(); j != 1 {
		t.Errorf("factor %g without jitter", j)
	}
}
