package load

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWordsAre64DifferentOnes(t *testing.T) {
	seen := map[string]bool{}
	for i := 0; i < len(words); i += wordBytes {
		w := words[i : i+wordBytes]
		if seen[w] || w[3] != ' ' || strings.ContainsAny(w[:3], " \"\\") {
			t.Errorf("word %q at %d", w, i)
		}
		seen[w] = true
	}
	if len(seen) != 1<<wordBits {
		t.Errorf("%d words, want %d", len(seen), 1<<wordBits)
	}
}

func TestPromptHasItsLengthAndIsUnique(t *testing.T) {
	heads := map[string]int{}
	for i := range 5000 {
		q := Request{PromptTokens: 16 + i%7}
		p := appendPrompt(nil, 1, i, q)
		if len(p) != 4*q.PromptTokens {
			t.Fatalf("prompt of %d bytes, want %d", len(p), 4*q.PromptTokens)
		}
		if other, taken := heads[string(p[:64])]; taken {
			t.Fatalf("requests %d and %d begin alike: %q", other, i, p[:64])
		}
		heads[string(p[:64])] = i
		if !bytes.Equal(p, appendPrompt(nil, 1, i, q)) {
			t.Fatal("prompt is not a function of its request")
		}
		if bytes.Equal(p[:64], appendPrompt(nil, 2, i, q)[:64]) {
			t.Fatal("two seeds, one prompt")
		}
	}
}

func shared(a, b []byte) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n / wordBytes
}

func TestPromptShares(t *testing.T) {
	tests := []struct {
		name   string
		a, b   Request
		tokens int // shared from the start
	}{
		{"nothing", Request{PromptTokens: 100}, Request{PromptTokens: 100}, 0},
		{"a prefix", Request{PromptTokens: 100, Prefix: 7, PrefixTokens: 60}, Request{PromptTokens: 90, Prefix: 7, PrefixTokens: 60}, 60},
		{"prefixes of two lengths", Request{PromptTokens: 100, Prefix: 7, PrefixTokens: 60}, Request{PromptTokens: 100, Prefix: 7, PrefixTokens: 25}, 25},
		{"a prefix longer than one prompt", Request{PromptTokens: 100, Prefix: 7, PrefixTokens: 60}, Request{PromptTokens: 33, Prefix: 7, PrefixTokens: 60}, 33},
		{"other prefixes", Request{PromptTokens: 100, Prefix: 7, PrefixTokens: 60}, Request{PromptTokens: 100, Prefix: 8, PrefixTokens: 60}, 0},
		{"prefix 0 is none", Request{PromptTokens: 100, PrefixTokens: 60}, Request{PromptTokens: 100, PrefixTokens: 60}, 0},
		{"two blocks", Request{PromptTokens: 40, Blocks: []uint64{1, 2, 3}, BlockTokens: 16}, Request{PromptTokens: 40, Blocks: []uint64{1, 2, 4}, BlockTokens: 16}, 32},
		{"all blocks, then unique", Request{PromptTokens: 40, Blocks: []uint64{1, 2}, BlockTokens: 16}, Request{PromptTokens: 40, Blocks: []uint64{1, 2}, BlockTokens: 16}, 32},
		{"block and prefix of one number", Request{PromptTokens: 16, Blocks: []uint64{7}, BlockTokens: 16}, Request{PromptTokens: 16, Prefix: 7, PrefixTokens: 16}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, b := appendPrompt(nil, 1, 0, tt.a), appendPrompt(nil, 1, 1, tt.b)
			if len(a) != 4*tt.a.PromptTokens || len(b) != 4*tt.b.PromptTokens {
				t.Fatalf("%d and %d bytes", len(a), len(b))
			}
			// After the shared part a word or two may agree by chance: 1 in 64 each.
			if got := shared(a, b); got < tt.tokens || got > tt.tokens+3 {
				t.Errorf("%d tokens shared, want %d", got, tt.tokens)
			}
		})
	}
}

// vLLM v0.6.4 answers 400 to a field it does not know.
func TestBodyHasOnlyOldFields(t *testing.T) {
	for _, stream := range []bool{false, true} {
		for _, api := range []API{Chat, Completions} {
			t.Run(fmt.Sprintf("%s %v", api, stream), func(t *testing.T) {
				body := appendBody(nil, api, 1, &talk{request: Request{Model: `a"b\ü/c`, PromptTokens: 3, OutputTokens: 9, Stream: stream}})
				var got map[string]any
				if err := json.Unmarshal(body, &got); err != nil {
					t.Fatalf("%s: %v", body, err)
				}
				prompt := string(appendPrompt(nil, 1, 0, Request{PromptTokens: 3}))
				want := map[string]any{"model": `a"b\ü/c`, "max_tokens": 9., "min_tokens": 9., "ignore_eos": true, "temperature": 0.}
				if api == Chat {
					want["messages"] = []any{map[string]any{"role": "user", "content": prompt}}
				} else {
					want["prompt"] = prompt
				}
				if stream {
					want["stream"] = true
					want["stream_options"] = map[string]any{"include_usage": true}
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("fields %v: %s", slices.Sorted(maps.Keys(got)), diff)
				}
			})
		}
	}
}
