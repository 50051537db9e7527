package report

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// aiperfRecord is one line of aiperf's profile_export.jsonl.
type aiperfRecord struct {
	Metadata struct {
		Start     int64  `json:"request_start_ns"`
		End       int64  `json:"request_end_ns"`
		Phase     string `json:"benchmark_phase"`
		Cancelled bool   `json:"was_cancelled"`
	} `json:"metadata"`
	Metrics map[string]struct {
		Value json.RawMessage `json:"value"`
		Unit  string          `json:"unit"`
	} `json:"metrics"`
	Error json.RawMessage `json:"error"`
}

// maxLine bounds a record: 1,000,000 gaps of 16 digits.
const maxLine = 16 << 20

// readAiperf reads aiperf's profile_export.jsonl.
func readAiperf(b []byte) (*Run, error) {
	r := &Run{Tool: "aiperf"}
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, maxLine)
	var records []aiperfRecord
	for n := 1; lines.Scan(); n++ {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		var rec aiperfRecord
		if err := json.Unmarshal(lines.Bytes(), &rec); err != nil {
			return nil, fmt.Errorf("line %d is no record of aiperf: %w", n, err)
		}
		if !rec.Metadata.Cancelled && (rec.Metadata.Phase == "profiling" || rec.Metadata.Phase == "") {
			records = append(records, rec)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if len(records) == 0 {
		return nil, errors.New("no records of the profiling phase")
	}
	slices.SortStableFunc(records, func(a, b aiperfRecord) int { return cmp.Compare(a.Metadata.Start, b.Metadata.Start) })
	start := records[0].Metadata.Start
	r.Started = time.Unix(0, start).UTC()
	for i := range records {
		q := records[i].request(start)
		r.Requests = append(r.Requests, q)
		r.Seconds = max(r.Seconds, q.End)
	}
	r.count()
	r.Workload.Measured = sent(r.Requests, false)
	r.Workload.Fields = fields(map[string]string{"tool": "aiperf"})
	return r, nil
}

func (a *aiperfRecord) request(start int64) Request {
	q := Request{
		Sent: float64(a.Metadata.Start-start) / 1e9, End: float64(a.Metadata.End-start) / 1e9,
		TTFT: a.number("time_to_first_token"), TPOT: a.number("inter_token_latency"), E2E: a.number("request_latency"),
		// The replica's own count where there is one: aiperf's tokenizer need not be
		// the replica's.
		Prompt: a.tokens("usage_prompt_tokens", "input_sequence_length"), Output: a.tokens("usage_completion_tokens", "output_sequence_length"),
		Failed: len(a.Error) > 0 && string(a.Error) != "null",
	}
	if m, ok := a.Metrics["inter_chunk_latency"]; ok && json.Unmarshal(m.Value, &q.Gaps) != nil {
		q.Gaps = nil // some releases have one mean value
	}
	return q
}

func (a *aiperfRecord) number(name string) float64 {
	var v *float64
	m, ok := a.Metrics[name]
	if !ok || json.Unmarshal(m.Value, &v) != nil || v == nil {
		return math.NaN()
	}
	return *v
}

func (a *aiperfRecord) tokens(names ...string) int {
	for _, name := range names {
		if v := a.number(name); v > 0 && v < math.MaxInt32 {
			return int(v)
		}
	}
	return 0
}
