package engine

import (
	"fmt"
	"slices"
	"strings"
)

// Point is one row of a Lin table: the time of all linear layers for Tokens tokens in a step.
type Point struct {
	Tokens int
	MS     float64
}

// Preset is one model on one kind of hardware: the constants of the step-time model and the engine's size.
//
// Kernel times come from vLLM 0.19.0 kernels measured on H100 SXM 80 GB (github.com/ai-dynamo/aiconfigurator @095f58a,
// aic-core systems data h100_sxm/vllm/0.19.0), summed over a model's layers; attention terms are fits to the same files.
type Preset struct {
	Name           string
	Serves         []string // lower-case fragments of served model names
	TensorParallel int
	MaxModelLen    int // max_position_embeddings of the model's config.json
	NumBlocks      int // 16-token blocks at gpu_memory_utilization 0.90 on 80 GB cards

	Lin               []Point // GEMMs and elementwise kernels of one step by tokens in it, ascending
	SlopeUS           float64 // us per token beyond the table
	HeadMS            float64 // H: lm_head; the middle of the measured range
	AttentionMS       float64 // tA: attention kernels' floor, paid by every step
	DecodeUS          float64 // tB: us per decoding sequence
	KVTokenUS         float64 // tK: us per resident KV token of the decoding sequences; KV bytes / 89 % of HBM bandwidth
	PairNS            float64 // aP: ns per (query token, context token) of prefill attention
	OverheadMS        float64 // o0: launch and CPU time of a V1 step
	OverheadPerSeqUS  float64 // o1: CPU time of a V1 step per sequence in it
	KVBytesPerToken   int     // over all GPUs; for transfers between replicas
	MemoryFloorTokens int     // tokens up to which Lin is bound by reading the weights, for Scaled
}

// Overheads o0 and o1 are fitted to Qwen3-32B TP2 on vLLM 0.12 (aiconfigurator silicon_sample.csv, TPOT at concurrency
// 8 to 128: 15.9 to 37.8 ms) and carried over to these models. A vLLM 0.19.0 run of Llama-3.1-8B on an RTX PRO 6000
// (casys-kaist/LLMServingSim @5daddb2) leaves 26 to 43 us per sequence beside memory traffic.
const (
	v1OverheadMS       = 1.2
	v1OverheadPerSeqUS = 36
)

var presets = []Preset{
	{
		Name:   "llama-3.1-8b",
		Serves: []string{"llama-3.1-8b", "llama-3-8b", "llama-8b"}, TensorParallel: 1,
		MaxModelLen: 131072, NumBlocks: 27900,
		Lin: []Point{
			{1, 5.4}, {64, 6.1}, {128, 6.2}, {256, 6.9}, {512, 11.0}, {1024, 20.2}, {2048, 41.7}, {4096, 81.5}, {8192, 177},
		},
		SlopeUS: 20.5, HeadMS: 0.40, AttentionMS: 0.30, DecodeUS: 5.5, KVTokenUS: 0.044, PairNS: 0.79,
		OverheadMS: v1OverheadMS, OverheadPerSeqUS: v1OverheadPerSeqUS, KVBytesPerToken: 131072, MemoryFloorTokens: 256,
	},
	{
		Name:   "qwen2.5-7b",
		Serves: []string{"qwen2.5-7b"}, TensorParallel: 1,
		MaxModelLen: 32768, NumBlocks: 64500,
		Lin: []Point{
			{1, 5.2}, {64, 5.3}, {128, 5.7}, {256, 6.5}, {512, 10.1}, {1024, 19.6}, {2048, 38.4}, {4096, 82}, {8192, 154},
		},
		SlopeUS: 19.2, HeadMS: 0.42, AttentionMS: 0.27, DecodeUS: 4.8, KVTokenUS: 0.0192, PairNS: 0.61,
		OverheadMS: v1OverheadMS, OverheadPerSeqUS: v1OverheadPerSeqUS, KVBytesPerToken: 57344, MemoryFloorTokens: 256,
	},
	{
		Name: "llama-3.1-8b-tp2", TensorParallel: 2,
		MaxModelLen: 131072, NumBlocks: 62500, // 1.0M tokens
		Lin: []Point{
			{1, 3.2}, {64, 3.6}, {128, 3.9}, {256, 4.6}, {512, 7.1}, {1024, 13.5}, {2048, 26.7}, {4096, 53.9}, {8192, 105},
		},
		SlopeUS: 13, HeadMS: 0.205, AttentionMS: 0.30, DecodeUS: 5, KVTokenUS: 0.022, PairNS: 0.40,
		OverheadMS: v1OverheadMS, OverheadPerSeqUS: v1OverheadPerSeqUS, KVBytesPerToken: 131072, MemoryFloorTokens: 256,
	},
	{
		// Experts routed with a power law; the running maximum, because the measured MoE kernels are not monotone in m.
		Name:   "mixtral-8x7b-tp2",
		Serves: []string{"mixtral-8x7b"}, TensorParallel: 2,
		MaxModelLen: 32768, NumBlocks: 26500,
		Lin: []Point{
			{1, 5.5}, {8, 16.6}, {64, 19.2}, {128, 20.8}, {256, 23.6}, {512, 24.6}, {1024, 31.9}, {2048, 55.4}, {4096, 101},
			{8192, 198},
		},
		SlopeUS: 24, HeadMS: 0.05, AttentionMS: 0.30, DecodeUS: 5, KVTokenUS: 0.022, PairNS: 0.40,
		OverheadMS: v1OverheadMS, OverheadPerSeqUS: v1OverheadPerSeqUS, KVBytesPerToken: 131072, MemoryFloorTokens: 512,
	},
}

// Presets returns the table of presets. The caller owns the result.
func Presets() []Preset {
	all := slices.Clone(presets)
	for i := range all {
		all[i] = all[i].clone()
	}
	return all
}

// PresetNamed returns the preset of that name.
func PresetNamed(name string) (Preset, error) {
	var names []string
	for _, p := range presets {
		if p.Name == name {
			return p.clone(), nil
		}
		names = append(names, p.Name)
	}
	return Preset{}, fmt.Errorf("preset %q is unknown, want one of %s", name, strings.Join(names, ", "))
}

// PresetFor finds the preset of a served model name, such as meta-llama/Llama-3.1-8B-Instruct.
func PresetFor(modelName string) (Preset, bool) {
	lower := strings.ToLower(modelName)
	for _, p := range presets {
		if lower == p.Name {
			return p.clone(), true
		}
	}
	for _, p := range presets {
		if slices.ContainsFunc(p.Serves, func(part string) bool { return strings.Contains(lower, part) }) {
			return p.clone(), true
		}
	}
	return Preset{}, false
}

func (p Preset) clone() Preset {
	p.Lin, p.Serves = slices.Clone(p.Lin), slices.Clone(p.Serves)
	return p
}

// Scaled is the preset on other hardware, with compute and bandwidth as fractions of the H100's (dense bf16 FLOP/s and
// HBM bytes/s). Memory-bound terms scale with bandwidth, compute-bound ones with compute, CPU overheads not at all. Each
// row of Lin moves by the ratio of its roofline, max(weights read, FLOPs), on the two cards. The pool is not touched.
func (p Preset) Scaled(name string, compute, bandwidth float64) Preset {
	s := p.clone()
	s.Name, s.Serves = name, nil
	for i, pt := range p.Lin {
		read, math := p.roof(pt.Tokens)
		s.Lin[i].MS = pt.MS * max(read/bandwidth, math/compute) / max(read, math)
	}
	s.SlopeUS /= compute
	s.PairNS /= compute
	s.HeadMS /= bandwidth
	s.AttentionMS /= bandwidth
	s.KVTokenUS /= bandwidth
	return s
}

// roof splits Lin(m) into the time to read the weights and the time of the arithmetic. Up to MemoryFloorTokens the row
// itself is the reading; beyond, reading stays at that level.
func (p *Preset) roof(m int) (readMS, mathMS float64) {
	return p.linear(min(m, p.MemoryFloorTokens)), p.SlopeUS / 1e3 * float64(m)
}

// linear is Lin(m) in ms: interpolated within the table, SlopeUS per token beyond it.
func (p *Preset) linear(m int) float64 {
	last := p.Lin[len(p.Lin)-1]
	if m >= last.Tokens {
		return last.MS + float64(m-last.Tokens)*p.SlopeUS/1e3
	}
	if m <= p.Lin[0].Tokens {
		return p.Lin[0].MS
	}
	i := 1
	for p.Lin[i].Tokens < m {
		i++
	}
	a, b := p.Lin[i-1], p.Lin[i]
	return a.MS + (b.MS-a.MS)*float64(m-a.Tokens)/float64(b.Tokens-a.Tokens)
}
