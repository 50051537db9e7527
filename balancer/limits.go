package balancer

import "time"

// Limits are what clients can bear, their service-level objectives; 0 is no limit.
type Limits struct {
	// TTFT + TTFTPerToken for each token of the prompt is how late the first token may be: a
	// limit that does not grow with the prompt is one of the prompt's length as well.
	TTFT, TTFTPerToken time.Duration
	// TPOT is how much time each output token after the first may take, on average over the
	// answer.
	TPOT time.Duration
}

// Any says that there is one.
func (l Limits) Any() bool { return l.TTFT > 0 || l.TPOT > 0 }

// FirstToken is how late the first token of a prompt of so many tokens may be; 0 is for ever.
func (l Limits) FirstToken(promptTokens int) time.Duration {
	if l.TTFT <= 0 {
		return 0
	}
	return l.TTFT + time.Duration(min(promptTokens, LongestContext))*min(l.TTFTPerToken, time.Second)
}

// LongestContext bounds what is believed of lengths, in tokens: the longest context of a
// published model (Llama 4 Scout).
const LongestContext = 10_000_000

// Late says that ttft is too late for the first token of such a prompt.
func (l Limits) Late(ttft time.Duration, promptTokens int) bool {
	limit := l.FirstToken(promptTokens)
	return limit > 0 && ttft > limit
}

// Slow says that tpot is too long for each of the tokens after it.
func (l Limits) Slow(tpot time.Duration) bool { return l.TPOT > 0 && tpot > l.TPOT }

// Misses says that a request which gets what is predicted misses a limit.
func (l Limits) Misses(p Prediction, promptTokens int) bool {
	return l.Late(p.TTFT, promptTokens) || l.Slow(p.TPOT)
}

// Prediction is how long a request is expected to take at the replica that Pick would
// choose now.
type Prediction struct {
	// TTFT is the time from being placed to the first token.
	TTFT time.Duration
	// TPOT is the mean time of the tokens after it, as the client of a stream sees them; 0
	// where there are none to see, or nobody can tell.
	TPOT time.Duration
}
