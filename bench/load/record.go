package load

import (
	"encoding/json"
	"time"
)

// Causes of a failed request; an HTTP status other than 200 is "status_NNN".
const (
	CauseConnect     = "connect"      // no connection
	CauseReset       = "reset"        // connection closed or reset before the whole response head
	CauseTimeout     = "timeout"      // Options.Timeout over
	CauseTruncated   = "truncated"    // the body ended early, or a stream ended without [DONE]
	CauseBadSSE      = "bad_sse"      // a stream that is none, or an event that is no JSON
	CauseBadResponse = "bad_response" // not HTTP, or a whole answer that is no JSON
	CauseStreamError = "stream_error" // an error event within a stream
	CauseCancelled   = "cancelled"    // ctx ended
)

// Record is what happened to one request. Times are those of the run.
type Record struct {
	// Index is the request's place in the sequence, Turn its place in the
	// conversation; together they name the record.
	Index, Turn int
	Model       string
	Class       string
	Stream      bool
	Warmup      bool // left out of the results

	// Scheduled is when the request should have been sent, Dispatched when the
	// generator got round to it, Sent when a connection was there and the first
	// byte was about to be written. Dispatched - Scheduled is the generator's own
	// lateness.
	Scheduled, Dispatched, Sent time.Duration
	// FirstContent and LastContent are the first and last event that brought
	// output; they mean nothing when Events is 0.
	FirstContent, LastContent time.Duration
	End                       time.Duration

	AskedPrompt, AskedOutput int // tokens, as requested
	// Events counts content events; one can carry several tokens.
	Events int
	// PromptTokens, OutputTokens and CachedTokens are the replica's usage.
	PromptTokens, OutputTokens, CachedTokens int

	Replica string // X-Lbd-Replica
	Status  int    // HTTP status, 0 when there was none
	Cause   string // empty when all went well
	Code    string // the OpenAI error code or type that came with it
	Detail  string // the error in words

	// Kept is nil unless Options.KeepBytes asked for it; it is in no results file.
	Kept *Kept
}

// Kept is what a record leaves out, for tools that want whole streams.
type Kept struct {
	Body []byte          // as sent
	Gaps []time.Duration // between content events
	// Text is the output, escaped as in JSON; event i brought Text[Ends[i-1]:Ends[i]].
	Text []byte
	Ends []int32
}

func (k *Kept) size() int64 {
	return int64(cap(k.Body) + 8*cap(k.Gaps) + cap(k.Text) + 4*cap(k.Ends))
}

// OK tells whether the request was answered completely.
func (r *Record) OK() bool { return r.Cause == "" }

// failure is the record's key in Group.Errors.
func (r *Record) failure() string {
	if r.Code != "" {
		return r.Cause + " " + r.Code
	}
	return r.Cause
}

// TTFT is the time from the scheduled time to the first content. Waiting that
// the client did because it was late counts: the user would have waited too.
func (r *Record) TTFT() time.Duration { return r.FirstContent - r.Scheduled }

// TTFTFromSend is the same from the moment the request was sent.
func (r *Record) TTFTFromSend() time.Duration { return r.FirstContent - r.Sent }

// E2E is the time from the scheduled time to the last byte.
func (r *Record) E2E() time.Duration { return r.End - r.Scheduled }

// E2EFromSend is the same from the moment the request was sent.
func (r *Record) E2EFromSend() time.Duration { return r.End - r.Sent }

// TPOT is the mean time per output token after the first:
// (last content - first content) / (output tokens - 1), as vllm bench defines it.
// It is 0 where OutputTokens is below 2.
func (r *Record) TPOT() time.Duration {
	if r.OutputTokens < 2 {
		return 0
	}
	return (r.LastContent - r.FirstContent) / time.Duration(r.OutputTokens-1)
}

// Lateness is how much later than planned the generator took the request up.
func (r *Record) Lateness() time.Duration { return r.Dispatched - r.Scheduled }

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// recordJSON is the form of a record in a results file: times in milliseconds.
type recordJSON struct {
	Index        int     `json:"index"`
	Turn         int     `json:"turn,omitempty"`
	Model        string  `json:"model"`
	Class        string  `json:"class,omitempty"`
	Stream       bool    `json:"stream"`
	Warmup       bool    `json:"warmup,omitempty"`
	Scheduled    float64 `json:"scheduled_ms"`
	Dispatched   float64 `json:"dispatched_ms"`
	Sent         float64 `json:"sent_ms"`
	FirstContent float64 `json:"first_content_ms"`
	LastContent  float64 `json:"last_content_ms"`
	End          float64 `json:"end_ms"`
	AskedPrompt  int     `json:"asked_prompt_tokens"`
	AskedOutput  int     `json:"asked_output_tokens"`
	Events       int     `json:"content_events"`
	PromptTokens int     `json:"prompt_tokens"`
	OutputTokens int     `json:"output_tokens"`
	CachedTokens int     `json:"cached_tokens,omitempty"`
	Replica      string  `json:"replica,omitempty"`
	Status       int     `json:"status"`
	Cause        string  `json:"cause,omitempty"`
	Code         string  `json:"code,omitempty"`
	Detail       string  `json:"detail,omitempty"`
}

// MarshalJSON writes the times in milliseconds.
func (r Record) MarshalJSON() ([]byte, error) {
	return json.Marshal(recordJSON{
		r.Index, r.Turn, r.Model, r.Class, r.Stream, r.Warmup,
		millis(r.Scheduled), millis(r.Dispatched), millis(r.Sent),
		millis(r.FirstContent), millis(r.LastContent), millis(r.End),
		r.AskedPrompt, r.AskedOutput, r.Events, r.PromptTokens, r.OutputTokens, r.CachedTokens,
		r.Replica, r.Status, r.Cause, r.Code, r.Detail,
	})
}

// UnmarshalJSON is the inverse of MarshalJSON, to the microsecond.
func (r *Record) UnmarshalJSON(b []byte) error {
	var j recordJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*r = Record{
		j.Index, j.Turn, j.Model, j.Class, j.Stream, j.Warmup,
		fromMillis(j.Scheduled), fromMillis(j.Dispatched), fromMillis(j.Sent),
		fromMillis(j.FirstContent), fromMillis(j.LastContent), fromMillis(j.End),
		j.AskedPrompt, j.AskedOutput, j.Events, j.PromptTokens, j.OutputTokens, j.CachedTokens,
		j.Replica, j.Status, j.Cause, j.Code, j.Detail, nil,
	}
	return nil
}
