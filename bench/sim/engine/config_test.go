package engine

import (
	"strings"
	"testing"
)

func TestDefaults(t *testing.T) {
	type want struct {
		modelLen, seqs, batched, blocks int
		chunked, caching                bool
	}
	for _, tc := range []struct {
		cfg  Config
		want want
	}{
		{Config{}, want{131072, 1024, 8192, 27900, true, true}},
		{Config{Preset: "qwen2.5-7b"}, want{32768, 1024, 8192, 64500, true, true}},
		{Config{Profile: ProfileV0}, want{131072, 256, 512, 27900, true, false}},
		{Config{Profile: ProfileV0, Preset: "qwen2.5-7b"}, want{32768, 256, 32768, 64500, false, false}},
		{Config{Profile: ProfileV0, MaxModelLen: 1024}, want{1024, 256, 2048, 27900, false, false}},
		{Config{Profile: ProfileV0, MaxModelLen: 32769}, want{32769, 256, 512, 27900, true, false}},
		{Config{NumBlocks: 100}, want{1600, 1024, 8192, 100, true, true}},
		{Config{Profile: ProfileV0, NumBlocks: 100}, want{1584, 256, 2048, 100, false, false}},
		{Config{BlockSize: 32}, want{131072, 1024, 8192, 13950, true, true}},
	} {
		c := start(t, tc.cfg).Config()
		got := want{c.MaxModelLen, c.MaxNumSeqs, c.MaxNumBatchedTokens, c.NumBlocks, *c.ChunkedPrefill, *c.PrefixCaching}
		if got != tc.want {
			t.Errorf("%+v: %+v, want %+v", tc.cfg, got, tc.want)
		}
	}
	if c := start(t, Config{}).Config(); c.Jitter != .05 || c.BlockSize != 16 || c.Preset != "llama-3.1-8b" || c.Profile != ProfileV1 {
		t.Errorf("defaults %+v", c)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, tc := range []struct {
		cfg  Config
		want string
	}{
		{Config{Preset: "gpt-5"}, `"gpt-5" is unknown, want one of llama-3.1-8b`},
		{Config{Profile: "v2"}, `"v2" is unknown, want "v0" or "v1"`},
		{Config{NumBlocks: -1}, "num_blocks -1"},
		{Config{NumBlocks: 10, MaxModelLen: 161}, "max_model_len 161 is more than the 160 tokens of 10 blocks"},
		{Config{MaxNumSeqs: 64, MaxNumBatchedTokens: 63}, "max_num_batched_tokens 63, want at least max_num_seqs 64"},
		{Config{ChunkedPrefill: flag(false)}, "want at least max_model_len 131072"},
		{Config{Model: &Preset{Name: "mine"}}, `preset "mine": want a Lin table`},
		{Config{Model: &Preset{Name: "mine", MaxModelLen: 1, NumBlocks: 1, Lin: []Point{{2, 1}, {2, 2}}}}, "Lin row 1"},
	} {
		if _, err := New(tc.cfg); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("New(%+v) = %v, want %q", tc.cfg, err, tc.want)
		}
	}
}
