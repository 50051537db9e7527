package load

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
)

// SLO is the limits a good request stays within; 0 is no limit. Goodput is the
// rate of good requests, as vllm bench's --goodput and DistServe (Zhong et al.,
// OSDI 2024) define it.
type SLO struct {
	TTFT, TPOT, E2E time.Duration
}

// ParseSLO reads limits like "ttft=500ms,tpot=50ms,e2e=10s"; a bare number is
// milliseconds, as in vllm bench and genai-perf.
func ParseSLO(s string) (SLO, error) {
	var slo SLO
	limits := map[string]*time.Duration{"ttft": &slo.TTFT, "tpot": &slo.TPOT, "e2e": &slo.E2E}
	for part := range strings.SplitSeq(s, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		limit := limits[name]
		if limit == nil {
			return SLO{}, fmt.Errorf("limit %q; want ttft=, tpot= or e2e=, each once", part)
		}
		d, err := time.ParseDuration(value)
		if err != nil {
			d, err = time.ParseDuration(value + "ms")
		}
		if err != nil || d <= 0 {
			return SLO{}, fmt.Errorf("limit %q; want a time above 0 like %s=500ms", part, name)
		}
		*limit = d
		delete(limits, name)
	}
	return slo, nil
}

func (s SLO) validate() error {
	if s.TTFT < 0 || s.TPOT < 0 || s.E2E < 0 {
		return errors.New("limits of the SLO must not be below 0")
	}
	return nil
}

// String is what ParseSLO reads, empty without limits.
func (s SLO) String() string {
	var parts []string
	for _, limit := range []struct {
		name string
		of   time.Duration
	}{{"ttft", s.TTFT}, {"tpot", s.TPOT}, {"e2e", s.E2E}} {
		if limit.of > 0 {
			parts = append(parts, fmt.Sprintf("%s=%v", limit.name, limit.of))
		}
	}
	return strings.Join(parts, ",")
}

// Good tells whether a request succeeded within the limits. An answer that was
// no stream has no first content the client could see before the end: its TTFT
// is its E2E, and it has no TPOT to miss.
func (s SLO) Good(r *Record) bool {
	ttft := r.TTFT()
	if r.Events == 0 {
		ttft = r.E2E()
	}
	within := func(d, limit time.Duration) bool { return limit == 0 || d <= limit }
	return r.OK() && within(ttft, s.TTFT) && within(r.TPOT(), s.TPOT) && within(r.E2E(), s.E2E)
}

// sloJSON is an SLO in a results file.
type sloJSON struct {
	TTFT float64 `json:"ttft_ms,omitempty"`
	TPOT float64 `json:"tpot_ms,omitempty"`
	E2E  float64 `json:"e2e_ms,omitempty"`
}

// MarshalJSON writes the limits in milliseconds and leaves out those there are not.
func (s SLO) MarshalJSON() ([]byte, error) {
	return json.Marshal(sloJSON{millis(s.TTFT), millis(s.TPOT), millis(s.E2E)})
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (s *SLO) UnmarshalJSON(b []byte) error {
	var j sloJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	*s = SLO{fromMillis(j.TTFT), fromMillis(j.TPOT), fromMillis(j.E2E)}
	return nil
}

func fromMillis(ms float64) time.Duration {
	return time.Duration(math.Round(ms * float64(time.Millisecond)))
}
