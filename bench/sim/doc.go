// Package sim is a vLLM replica without a GPU: a server that real clients
// cannot tell from vLLM over HTTP, with the timing of a simulated engine
// (bench/sim/engine) behind it.
//
// Invariant: what a profile answers is what that vLLM version answers, byte
// for byte where clients can see it (metric names and their order, error
// shapes, SSE framing, connection behaviour), and the engine is stepped by
// exactly one goroutine, so a run depends on arrivals and seed only.
//
//	s, err := sim.New(sim.Config{Model: "meta-llama/Llama-3.1-8B-Instruct"})
//	err = s.Start("127.0.0.1:0")
//	defer s.Stop()
//	http.Get(s.URL() + "/v1/models")
//
// Token rule: one token is four bytes. A prompt of 4*N bytes counts N tokens,
// generated text has four bytes per token, and a chat adds the fixed overhead
// of [ChatTokens]. Locks never nest.
package sim
