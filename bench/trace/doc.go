// Package trace reads public traces of LLM traffic and makes synthetic ones.
//
// A [Trace] is a lazy sequence of [Arrival] values in time order; nothing is
// read or drawn before the sequence is ranged over, and memory does not grow
// with the length of the trace. The same input and the same seed give the same
// arrivals, so that every strategy of a comparison meets the same traffic.
//
//	t, err := trace.Open("conversation_trace.jsonl.gz", trace.FormatMooncake, 1)
//	for a, err := range t.Window(5*time.Minute, time.Minute).SpeedUp(2).Arrivals { ... }
package trace
