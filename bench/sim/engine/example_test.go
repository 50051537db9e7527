package engine_test

import (
	"fmt"
	"time"

	"lbd/bench/sim/engine"
)

// Two turns of one conversation: the second finds the first in the prefix cache.
func Example() {
	e, err := engine.New(engine.Config{Preset: "llama-3.1-8b", Profile: engine.ProfileV1, Jitter: -1, Quiet: true})
	if err != nil {
		fmt.Println(err)
		return
	}
	var prompt []uint64 // one hash per full block of 16 tokens, each standing for all before it too
	parent := uint64(0)
	for content := range uint64(200) {
		parent = engine.Chain(parent, content)
		prompt = append(prompt, parent)
	}
	for turn := range uint64(2) {
		n := 100 * int(turn+1)
		err := e.Submit(engine.Request{ID: turn, PromptTokens: 16*n + 1, OutputTokens: 50, Blocks: prompt[:n]})
		if err != nil {
			fmt.Println(err)
			return
		}
		var now time.Duration
		for {
			d, events := e.Step(nil)
			if d == 0 {
				break
			}
			now += d
			for _, ev := range events {
				if ev.First {
					fmt.Printf("turn %d: first token after %v, %d of %d tokens cached\n",
						turn, now.Round(time.Millisecond), ev.CachedTokens, 16*n+1)
				}
			}
		}
	}
	// Output:
	// turn 0: first token after 35ms, 0 of 1601 tokens cached
	// turn 1: first token after 37ms, 1600 of 3201 tokens cached
}
