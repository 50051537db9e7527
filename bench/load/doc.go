// Package load is an OpenAI client that measures: it sends requests at their
// times (open loop) or so many at once (closed loop), reads the streams event by
// event, and reports TTFT, ITL, TPOT and E2E.
//
//	res, err := load.Run(ctx, load.Options{Target: "http://127.0.0.1:8080", Requests: seq})
//	res.WriteTable(os.Stdout)
//
// Invariants: every request taken from the sequence ends in exactly one Record;
// an open loop never waits for a response; no goroutine outlives Run.
//
// # What is measured
//
// An event arrives when the kernel has its last byte (SO_TIMESTAMPNS), not when the
// client gets round to reading it. Where there are no stamps, on other systems
// than Linux and over TLS, it is the time after the read; event_clock says which.
// Events that are read together have the time of the last of them.
//
// A request has two clocks. The scheduled one starts when the plan said and
// includes any delay of the client itself; figures named from_send start when the
// first byte was about to be written. The first and last content are events with
// non-empty content (vLLM's role chunk is empty); ITL is the gap between two
// content events, so several tokens in one event are one gap, and events that
// arrive in one read are 0 apart. TPOT divides by the replica's own token count.
// A stream counts as complete only with [DONE] and an orderly end of the body.
// Nothing is retried.
//
// Percentiles are those of all samples, interpolated between ranks as numpy does;
// those of ITL come from a histogram whose buckets are off by at most 0.4 % of
// the value or 0.5 µs. Latencies are of successful requests only: read them
// together with the number of failures.
//
// # Conversations
//
// A request may have later turns. Each is sent a think time after the answer
// before it has ended, in an open loop too, and its scheduled time is that
// moment. Its prompt is the whole conversation, with the words the replica really
// answered. The turns after a failed one are not sent; they are counted.
//
// # Results file
//
// Results marshals to one JSON object, every latency in milliseconds. Its fields
// are those of [Results] and [Group], which document them:
//
//   - schema, tool, env, target, api, mode, concurrency, seed, started, seconds,
//     interrupted, warmup_requests, peak_in_flight, event_clock, lateness_ms, wrong_length,
//     no_usage, abandoned_turns
//   - workload: a flat object of strings, what was asked for; two runs can be
//     compared when it is equal in both, and where it is not it says how they
//     differ. The target, the seed and the environment are not in it.
//   - slo: ttft_ms, tpot_ms, e2e_ms, those that were given
//   - the figures: requests, ok, failed, cancelled, errors (a count for each
//     cause), prompt_tokens, output_tokens, cached_tokens, requests_per_second,
//     output_tokens_per_second, good and goodput_per_second (only with slo); and
//     ttft_ms, ttft_from_send_ms, itl_ms, tpot_ms, e2e_ms, e2e_from_send_ms (each
//     count, mean, p50, p90, p99, max); itl_counts: pairs of a gap in milliseconds
//     and how often it came
//   - models and replicas: the same figures for each name
//   - samples: the words of the first failure of each cause; warnings
//   - timeline: step_ms; replicas, for each the lists in_flight, started, ended and
//     output_tokens, a value for each step; sampled, only when the target is lbd:
//     source, at_ms, failures, and replicas with the lists waiting, running,
//     kv_cache and in_flight, a value or null for each of at_ms
//   - records: one for each request, warm-up included, times in milliseconds from
//     the start of the run; index and turn name it, see [Record]
package load
