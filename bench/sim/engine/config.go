package engine

import (
	"errors"
	"fmt"
)

// Profile is a scheduler generation.
type Profile string

// The generations of the two images lbd works with.
const (
	ProfileV0 Profile = "v0" // vLLM v0.6.4.post1
	ProfileV1 Profile = "v1" // vLLM v0.19
)

// Config of an engine. Zero values mean the default of the profile or preset.
type Config struct {
	Preset  string  // default "llama-3.1-8b"; see Presets
	Model   *Preset // a preset of the caller's own, used instead of Preset
	Profile Profile // default ProfileV1

	// MaxModelLen is the longest prompt + output in tokens. The default is the model's, or the pool's if that is less;
	// a configured value the pool cannot hold is an error, as it is in vLLM.
	MaxModelLen int
	// MaxNumSeqs defaults to 256 (V0) and 1024 (V1 API server on cards of 70 GiB and more).
	MaxNumSeqs int
	// MaxNumBatchedTokens defaults to 8192 (V1, same cards), 512 (V0, chunked), max(MaxModelLen, 2048) (V0).
	MaxNumBatchedTokens int
	BlockSize           int // tokens; default 16
	NumBlocks           int // default the preset's, at gpu_memory_utilization 0.90

	ChunkedPrefill *bool // default: V1 on; V0 on if MaxModelLen > 32768
	PrefixCaching  *bool // default: V1 on, V0 off
	// ShareInStep lets a request hit blocks that another one, scheduled before it, computes in the same step. Default: V1
	// on, V0 off. vLLM V1 enters blocks into the prefix cache when they are allocated, for all tokens up to the end of
	// what is scheduled (KVCacheManager.allocate_slots, vllm/v1/core/kv_cache_manager.py), and looks the next waiting
	// request up after that, in the same Scheduler.schedule; V0 marks blocks as computed after the step
	// (BlockSpaceManager.mark_blocks_as_computed).
	ShareInStep *bool
	// MaxCachedTokens bounds the cached tokens nobody references (kvcached: KVCACHED_MAX_CACHED_TOKENS, 16000);
	// 0 = no bound but the pool.
	MaxCachedTokens int

	Jitter float64 // sigma of the lognormal factor on step times; default 0.05, negative = none
	Seed   uint64
	// Quiet leaves out the events of single tokens: only First, Preempted and Finished are reported, each with the
	// tokens since the last event of the request. A decode step then touches only the
	// sequences that end or start a block in it, one in BlockSize.
	Quiet bool
	// Progress, with Quiet, reports a decoding sequence also whenever it has filled a block.
	Progress bool
}

// Defaults of vllm/engine/arg_utils.py and vllm/config.py at v0.6.4.post1 (V0) and v0.19.1 (V1).
const (
	defaultPreset    = "llama-3.1-8b"
	defaultBlockSize = 16
	defaultJitter    = 0.05 // lognormal step jitter of about 5 %

	v0MaxNumSeqs       = 256
	v0ChunkedAbove     = 32768 // max_model_len above which V0 turns chunked prefill on by itself
	v0ChunkedTokens    = 512
	v0MinBatchedTokens = 2048
	v0WatermarkPercent = 1 // BlockSpaceManager watermark=0.01

	v1MaxNumSeqs       = 1024
	v1MaxBatchedTokens = 8192
)

// resolved fills in the defaults and checks the result the way vLLM checks its arguments at start.
func (c Config) resolved() (Config, Preset, error) {
	p, err := c.preset()
	if err != nil {
		return c, p, err
	}
	if c.Profile == "" {
		c.Profile = ProfileV1
	}
	if c.Profile != ProfileV0 && c.Profile != ProfileV1 {
		return c, p, fmt.Errorf("profile %q is unknown, want %q or %q", c.Profile, ProfileV0, ProfileV1)
	}
	if err := c.notNegative(); err != nil {
		return c, p, err
	}
	c.Preset = p.Name
	c.BlockSize = or(c.BlockSize, defaultBlockSize)
	c.NumBlocks = or(c.NumBlocks, max(1, p.NumBlocks*defaultBlockSize/c.BlockSize))
	if c.Jitter == 0 {
		c.Jitter = defaultJitter
	}
	holds := (c.NumBlocks - c.watermark()) * c.BlockSize
	c.MaxModelLen = or(c.MaxModelLen, min(p.MaxModelLen, holds))
	c.batching()
	return c, p, c.check(holds)
}

func (c Config) preset() (Preset, error) {
	if c.Model != nil {
		return c.Model.clone(), c.Model.check()
	}
	if c.Preset == "" {
		return PresetNamed(defaultPreset)
	}
	return PresetNamed(c.Preset)
}

// batching sets what depends on the generation.
func (c *Config) batching() {
	v0 := c.Profile == ProfileV0
	if c.ChunkedPrefill == nil {
		on := !v0 || c.MaxModelLen > v0ChunkedAbove
		c.ChunkedPrefill = &on
	}
	if c.PrefixCaching == nil {
		on := !v0
		c.PrefixCaching = &on
	}
	if c.ShareInStep == nil {
		on := !v0
		c.ShareInStep = &on
	}
	switch {
	case !v0:
		c.MaxNumSeqs = or(c.MaxNumSeqs, v1MaxNumSeqs)
		c.MaxNumBatchedTokens = or(c.MaxNumBatchedTokens, max(v1MaxBatchedTokens, c.MaxNumSeqs))
	case *c.ChunkedPrefill:
		c.MaxNumSeqs = or(c.MaxNumSeqs, v0MaxNumSeqs)
		c.MaxNumBatchedTokens = or(c.MaxNumBatchedTokens, max(v0ChunkedTokens, c.MaxNumSeqs))
	default:
		c.MaxNumSeqs = or(c.MaxNumSeqs, v0MaxNumSeqs)
		c.MaxNumBatchedTokens = or(c.MaxNumBatchedTokens, max(c.MaxModelLen, v0MinBatchedTokens))
	}
}

// watermark is the number of blocks V0 keeps free when it admits.
func (c Config) watermark() int {
	if c.Profile == ProfileV0 {
		return c.NumBlocks * v0WatermarkPercent / 100
	}
	return 0
}

func (c Config) check(holds int) error {
	switch {
	case c.MaxModelLen > holds:
		return fmt.Errorf("max_model_len %d is more than the %d tokens of %d blocks", c.MaxModelLen, holds, c.NumBlocks)
	case c.MaxNumBatchedTokens < c.MaxNumSeqs:
		return fmt.Errorf("max_num_batched_tokens %d, want at least max_num_seqs %d", c.MaxNumBatchedTokens, c.MaxNumSeqs)
	case !*c.ChunkedPrefill && c.MaxNumBatchedTokens < c.MaxModelLen:
		return fmt.Errorf("max_num_batched_tokens %d without chunked prefill, want at least max_model_len %d",
			c.MaxNumBatchedTokens, c.MaxModelLen)
	}
	return nil
}

func (c Config) notNegative() error {
	for name, v := range map[string]int{
		"max_model_len": c.MaxModelLen, "max_num_seqs": c.MaxNumSeqs, "max_num_batched_tokens": c.MaxNumBatchedTokens,
		"block_size": c.BlockSize, "num_blocks": c.NumBlocks, "max_cached_tokens": c.MaxCachedTokens,
	} {
		if v < 0 {
			return fmt.Errorf("%s %d, want 0 (default) or more", name, v)
		}
	}
	return nil
}

func (p *Preset) check() error {
	if len(p.Lin) == 0 || p.MaxModelLen < 1 || p.NumBlocks < 1 {
		return fmt.Errorf("preset %q: want a Lin table, MaxModelLen and NumBlocks", p.Name)
	}
	for i, pt := range p.Lin {
		if pt.Tokens < 1 || pt.MS <= 0 || i > 0 && pt.Tokens <= p.Lin[i-1].Tokens {
			return fmt.Errorf("preset %q: Lin row %d is (%d tokens, %g ms), want ascending tokens and positive times",
				p.Name, i, pt.Tokens, pt.MS)
		}
	}
	return nil
}

// ErrTooLong is wrapped by Submit's error for a request longer than MaxModelLen. vLLM answers it with 400.
var ErrTooLong = errors.New("request is longer than the model's context")

func or(v, otherwise int) int {
	if v == 0 {
		return otherwise
	}
	return v
}
