package trace

import (
	"cmp"
	"encoding/json"
	"io"
	"slices"
	"strconv"
	"time"
)

// accessLine is a line of lbd's access log (proxy/accesslog.go, log format json): lengths and hashes of a prompt, never
// its text. Prefix are the chained hashes of its leading blocks as balancer/prefix cuts them, in hexadecimal; the hashes
// of one process of lbd mean nothing beside those of another.
type accessLine struct {
	Message    string   `json:"message"`
	Time       string   `json:"time"` // when the request ended, RFC 3339
	Model      string   `json:"model"`
	Status     int      `json:"status"`
	DurationMS float64  `json:"duration_ms"`
	Prompt     int      `json:"prompt_tokens"`
	Completion int      `json:"completion_tokens"`
	Events     int      `json:"content_events"` // of a stream that told no usage
	Bytes      int      `json:"prompt_bytes"`
	Prefix     []string `json:"prefix"`
}

// AccessBlock is the block size in tokens of what AccessLog yields: vLLM's own.
const AccessBlock = 16

// bytesPerToken stands in where a line tells bytes and no tokens.
const bytesPerToken = 4

// AccessLog reads lbd's own access log, plain or gzip. Lines that are not about a request, and requests that were
// refused or whose lengths are not known, are left out. A request arrives its duration before its line. The log is in the
// order of ends, so that it is read whole before the first arrival.
func AccessLog(r io.Reader) *Trace {
	return &Trace{BlockTokens: AccessBlock, Arrivals: func(yield func(Arrival, error) bool) {
		all, err := readAccessLog(r)
		if err != nil {
			yield(Arrival{}, err)
			return
		}
		for _, a := range all {
			if !yield(a, nil) {
				return
			}
		}
	}}
}

func readAccessLog(r io.Reader) ([]Arrival, error) {
	var all []Arrival
	var starts []time.Time
	for l, err := range lines(r) {
		if err != nil {
			return nil, err
		}
		a, start, ok, err := parseAccess(l)
		if err != nil {
			return nil, err
		}
		if ok {
			all, starts = append(all, a), append(starts, start)
		}
	}
	if len(all) == 0 {
		return nil, line{number: 1}.errorf("no request with known lengths; want the lines lbd writes with access_log on and log format json")
	}
	first := slices.MinFunc(starts, time.Time.Compare)
	for i := range all {
		all[i].At = starts[i].Sub(first)
	}
	slices.SortStableFunc(all, func(a, b Arrival) int { return cmp.Compare(a.At, b.At) })
	return all, nil
}

// parseAccess reads one line; ok is false for one that is no arrival.
func parseAccess(l line) (a Arrival, start time.Time, ok bool, err error) {
	var row accessLine
	if err := json.Unmarshal(l.text, &row); err != nil {
		return a, start, false, l.errorf("want one JSON object per line: %w", err)
	}
	if row.Message != "request" || row.Status < 200 || row.Status > 299 {
		return a, start, false, nil
	}
	a.Model = row.Model
	a.PromptTokens = cmp.Or(row.Prompt, row.Bytes/bytesPerToken)
	a.OutputTokens = cmp.Or(row.Completion, row.Events)
	if a.PromptTokens < 1 || a.OutputTokens < 1 {
		return a, start, false, nil
	}
	for name, n := range map[string]int{"prompt_tokens": a.PromptTokens, "completion_tokens": a.OutputTokens} {
		if err := checkTokens(l, name, n); err != nil {
			return a, start, false, err
		}
	}
	end, err := time.Parse(time.RFC3339Nano, row.Time)
	if err != nil {
		return a, start, false, l.errorf("time %q; want one like 2026-11-21T18:15:46.680Z", row.Time)
	}
	if !(row.DurationMS >= 0 && row.DurationMS < 1e9) {
		return a, start, false, l.errorf("duration_ms %v; want 0 to 1e9", row.DurationMS)
	}
	a.Blocks, err = accessBlocks(l, &row, a.PromptTokens)
	return a, end.Add(-time.Duration(row.DurationMS * float64(time.Millisecond))), err == nil, err
}

// accessBlocks turns blocks of bytes into blocks of AccessBlock tokens, each named by the block of bytes it ends in and
// its place there. Prompts of one prefix have nearly the same bytes per token, so nearly all names agree.
func accessBlocks(l line, row *accessLine, promptTokens int) ([]uint64, error) {
	if len(row.Prefix) == 0 || row.Bytes < 1 {
		return nil, nil
	}
	hashes := make([]uint64, len(row.Prefix))
	for i, text := range row.Prefix {
		h, err := strconv.ParseUint(text, 16, 64)
		if err != nil {
			return nil, l.errorf("prefix %q; want hexadecimal hashes of 64 bits", text)
		}
		hashes[i] = h
	}
	var ids []uint64
	perBlock := AccessBlock * float64(row.Bytes) / float64(promptTokens)
	block, place := 0, uint64(0)
	for i := range promptTokens / AccessBlock {
		end := int(float64(i+1) * perBlock)
		for block < len(hashes) && accessBlockEnd(block) < end {
			block, place = block+1, 0
		}
		if block == len(hashes) {
			return ids, nil
		}
		ids = append(ids, hashes[block]+place*0x9E3779B97F4A7C15)
		place++
	}
	return ids, nil
}

// accessBlockEnd is where the i-th block of a prompt ends, in bytes: 16 blocks of 256, then blocks of 1024 (balancer/prefix).
func accessBlockEnd(i int) int {
	if i < 16 {
		return 256 * (i + 1)
	}
	return 4096 + 1024*(i-15)
}
