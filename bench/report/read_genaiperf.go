package report

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// genaiRaw is genai-perf's profile_export.json; times are nanoseconds.
type genaiRaw struct {
	Experiments []struct {
		Experiment struct {
			Mode  string  `json:"mode"`
			Value float64 `json:"value"`
		} `json:"experiment"`
		Requests []genaiRequest `json:"requests"`
	} `json:"experiments"`
	Endpoint string `json:"endpoint"`
}

type genaiRequest struct {
	Timestamp int64 `json:"timestamp"`
	Inputs    struct {
		// A string of JSON; older releases have the object itself.
		Payload json.RawMessage `json:"payload"`
	} `json:"request_inputs"`
	Times   []int64 `json:"response_timestamps"`
	Outputs []struct {
		Response string `json:"response"`
	} `json:"response_outputs"`
}

// readGenaiRaw reads genai-perf's profile_export.json.
func readGenaiRaw(b []byte) (*Run, error) {
	var f genaiRaw
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("not a profile_export.json of genai-perf: %w", err)
	}
	if len(f.Experiments) != 1 {
		return nil, fmt.Errorf("%d experiments; want one", len(f.Experiments))
	}
	x := f.Experiments[0]
	if len(x.Requests) == 0 {
		return nil, errors.New("no requests")
	}
	slices.SortStableFunc(x.Requests, func(a, b genaiRequest) int { return cmp.Compare(a.Timestamp, b.Timestamp) })
	r := &Run{Tool: "genai-perf", Started: time.Unix(0, x.Requests[0].Timestamp).UTC()}
	hash := sha256.New()
	for i := range x.Requests {
		q := x.Requests[i].request(r.Started.UnixNano())
		hash.Write(x.Requests[i].Inputs.Payload)
		r.Requests = append(r.Requests, q)
		r.Seconds = max(r.Seconds, q.End)
	}
	r.Fingerprint = hex.EncodeToString(hash.Sum(nil)[:8])
	r.count()
	r.Workload.Load = Load{"concurrency", x.Experiment.Value}
	if x.Experiment.Mode == "request_rate" {
		r.Workload.Load.Kind = "rate"
	}
	r.Workload.Fields = fields(map[string]string{
		"tool": r.Tool, "endpoint": f.Endpoint, "models": r.modelNames(),
		"mode": x.Experiment.Mode, r.Workload.Load.Kind: trimZero(x.Experiment.Value),
	})
	r.Workload.Measured = sent(r.Requests, false)
	return r, nil
}

// count fills the totals from the requests.
func (r *Run) count() {
	r.Total, r.Models = totals(r.Requests, r.Seconds), byModel(r.Requests, r.Seconds)
}

func (r *Run) modelNames() string { return strings.Join(slices.Sorted(maps.Keys(r.Models)), ", ") }

// request turns the raw timestamps into latencies. The end is the last piece of
// content, as genai-perf has it: a bare [DONE] is not counted.
func (g *genaiRequest) request(start int64) Request {
	at := func(ns int64) float64 { return float64(ns-start) / 1e9 }
	q := Request{Sent: at(g.Timestamp), End: at(g.Timestamp), TTFT: math.NaN(), TPOT: math.NaN(), E2E: math.NaN(), Failed: true}
	q.Model = g.model()
	var last int64
	for i := range min(len(g.Times), len(g.Outputs)) {
		c := contentOf(g.Outputs[i].Response)
		if c.prompt > 0 || c.output > 0 {
			q.Prompt, q.Output = c.prompt, c.output
		}
		if c.done {
			continue
		}
		q.End, q.E2E = at(g.Times[i]), float64(g.Times[i]-g.Timestamp)/1e6
		if !c.some {
			continue
		}
		q.Failed = false
		if last == 0 && c.stream {
			q.TTFT = float64(g.Times[i]-g.Timestamp) / 1e6
		} else if c.stream {
			q.Gaps = append(q.Gaps, float64(g.Times[i]-last)/1e6)
		}
		last = g.Times[i]
	}
	if q.Output > 1 {
		q.TPOT = (q.E2E - q.TTFT) / float64(q.Output-1)
	}
	return q
}

func (g *genaiRequest) model() string {
	payload := g.Inputs.Payload
	var text string
	if json.Unmarshal(payload, &text) == nil {
		payload = json.RawMessage(text)
	}
	var p struct {
		Model string `json:"model"`
	}
	_ = json.Unmarshal(payload, &p) // a payload of another kind names no model
	return p.Model
}

// content is what one piece of a response says.
type content struct {
	some, stream, done bool
	prompt, output     int
}

// contentOf reads a piece of a response: server-sent events or one JSON object.
func contentOf(response string) content {
	var c content
	for line := range strings.Lines(response) {
		line = strings.TrimSpace(line)
		event, isEvent := strings.CutPrefix(line, "data:")
		event = strings.TrimSpace(event)
		if event == "[DONE]" {
			c.done = !c.some
			continue
		}
		var body struct {
			Choices []struct {
				Text  string `json:"text"`
				Delta struct {
					Content   string `json:"content"`
					Reasoning string `json:"reasoning_content"`
				} `json:"delta"`
				Message struct {
					Content string `json:"content"`
				} `json:"message"`
			} `json:"choices"`
			Usage *struct {
				Prompt int `json:"prompt_tokens"`
				Output int `json:"completion_tokens"`
			} `json:"usage"`
		}
		if json.Unmarshal([]byte(event), &body) != nil {
			continue
		}
		for _, choice := range body.Choices {
			if choice.Text+choice.Delta.Content+choice.Delta.Reasoning+choice.Message.Content != "" {
				c.some, c.stream = true, isEvent
			}
		}
		if body.Usage != nil {
			c.prompt, c.output = body.Usage.Prompt, body.Usage.Output
		}
	}
	return c
}

// statistic is one metric of genai-perf's and aiperf's summaries.
type statistic struct {
	Unit  string   `json:"unit"`
	Avg   *float64 `json:"avg"`
	Count *float64 `json:"count"`
	P1    *float64 `json:"p1"`
	P5    *float64 `json:"p5"`
	P10   *float64 `json:"p10"`
	P25   *float64 `json:"p25"`
	P50   *float64 `json:"p50"`
	P75   *float64 `json:"p75"`
	P90   *float64 `json:"p90"`
	P95   *float64 `json:"p95"`
	P99   *float64 `json:"p99"`
}

// amount is the average where it is a sensible number, else 0.
func (s statistic) amount() float64 {
	if s.Avg == nil || !(*s.Avg > 0 && *s.Avg < math.MaxInt32) {
		return 0
	}
	return *s.Avg
}

// summary is the metric in milliseconds, of the given number of requests where the
// file does not count.
func (s statistic) summary(count int) Summary {
	if s.Avg == nil {
		return Summary{}
	}
	scale := 1.0
	if s.Unit == "sec" || s.Unit == "s" {
		scale = 1000
	}
	if s.Count != nil {
		count = int(*s.Count)
	}
	sum := Summary{Count: count, Mean: *s.Avg * scale, Quantiles: map[float64]float64{}}
	for q, v := range map[float64]*float64{.01: s.P1, .05: s.P5, .1: s.P10, .25: s.P25, .5: s.P50, .75: s.P75, .9: s.P90, .95: s.P95, .99: s.P99} {
		if v != nil {
			sum.Quantiles[q] = *v * scale
		}
	}
	return sum
}

// genaiSummary is genai-perf's profile_export_genai_perf.json, and with more of
// the same names aiperf's profile_export_aiperf.json.
type genaiSummary struct {
	metrics map[string]statistic
	config  map[string]any // input_config
	version string         // of aiperf
	started string
}

func (g *genaiSummary) UnmarshalJSON(b []byte) error {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(b, &all); err != nil {
		return err
	}
	g.metrics = map[string]statistic{}
	for name, raw := range all {
		var s statistic
		if bytes.HasPrefix(raw, []byte("{")) && json.Unmarshal(raw, &s) == nil && s.Avg != nil {
			g.metrics[name] = s
		}
	}
	for name, into := range map[string]any{"input_config": &g.config, "aiperf_version": &g.version, "start_time": &g.started} {
		if raw := all[name]; raw != nil {
			if err := json.Unmarshal(raw, into); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

func readGenaiSummary(b []byte) (*genaiSummary, error) {
	var g genaiSummary
	if err := json.Unmarshal(b, &g); err != nil {
		return nil, fmt.Errorf("not a summary of genai-perf or aiperf: %w", err)
	}
	if len(g.metrics) == 0 {
		return nil, errors.New("no metrics")
	}
	return &g, nil
}

// apply puts the summary's figures into a run. Where the run has requests of its
// own, only what those do not tell is taken.
func (g *genaiSummary) apply(r *Run) {
	m := g.metrics
	t := &r.Total
	if len(r.Requests) == 0 {
		t.OK, t.Failed = int(m["request_count"].amount()), int(m["error_request_count"].amount())
		t.PerSecond = m["request_throughput"].amount()
		t.PromptTokens = float64(t.OK) * m["input_sequence_length"].amount()
		r.Seconds = m["benchmark_duration"].amount()
		if r.Seconds == 0 && t.PerSecond > 0 {
			r.Seconds = float64(t.OK) / t.PerSecond
		}
	}
	if t.Summaries == nil {
		t.Summaries, t.Goodput = map[Quantity]Summary{}, math.NaN()
	}
	if t.OutputTokens == 0 {
		t.OutputTokens = float64(t.OK) * m["output_sequence_length"].amount()
	}
	if v := m["output_token_throughput"]; t.TokensPerSecond == 0 && v.Avg != nil {
		t.TokensPerSecond = *v.Avg
	}
	if v := m["goodput"]; v.Avg != nil {
		t.Goodput = *v.Avg
	}
	for name, q := range map[string]Quantity{"time_to_first_token": TTFT, "inter_token_latency": TPOT, "request_latency": E2E} {
		if s := m[name].summary(t.OK); t.Summaries[q].Count == 0 && s.Count > 0 {
			t.Summaries[q] = s
		}
	}
	if r.Models == nil || len(r.Models) == 1 {
		r.Models = map[string]Totals{r.modelNames(): *t}
	}
}

// describe adds what the tool was asked for, and where the run has no requests
// what came of it.
func (g *genaiSummary) describe(r *Run, tool string) {
	asked := map[string]string{"tool": tool}
	for _, f := range r.Workload.Fields {
		asked[f.Name] = f.Value
	}
	for _, path := range [][]string{
		{"endpoint", "type"}, {"endpoint", "streaming"}, {"endpoint", "extra"}, {"input", "synthetic_tokens"}, {"input", "output_tokens"},
		{"input", "extra"}, {"input", "num_dataset_entries"}, {"input", "prefix_prompt"}, {"input", "sessions"},
		{"perf_analyzer", "stimulus"}, {"perf_analyzer", "measurement"}, {"datasets"}, {"phases"},
	} {
		if text := lookup(g.config, path); text != "" {
			asked[strings.Join(path, ".")] = text
		}
	}
	r.Workload.Fields = fields(asked)
	if len(r.Requests) == 0 {
		r.Workload.Measured = []Measured{
			{Name: "prompt tokens per request", Value: r.Total.PromptTokens / float64(max(1, r.Total.OK))},
			{Name: "output tokens per request", Value: r.Total.OutputTokens / float64(max(1, r.Total.OK))},
		}
	}
}

// lookup is the value at a path as JSON, empty where there is none.
func lookup(v any, path []string) string {
	for _, name := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return ""
		}
		v = m[name]
	}
	if v == nil {
		return ""
	}
	b, err := json.Marshal(v) // of maps the keys are sorted
	if err != nil {
		return ""
	}
	return strings.Trim(string(b), `"`)
}

// stimulus is the load of a summary without records.
func (g *genaiSummary) stimulus() Load {
	for _, path := range [][]string{{"perf_analyzer", "stimulus", "concurrency"}, {"perf_analyzer", "stimulus", "request_rate"}} {
		if v, err := strconv.ParseFloat(lookup(g.config, path), 64); err == nil {
			return Load{map[string]string{"concurrency": "concurrency", "request_rate": "rate"}[path[2]], v}
		}
	}
	phases, _ := g.config["phases"].([]any)
	for _, phase := range phases {
		if kind := lookup(phase, []string{"kind"}); kind != "" && kind != "profiling" {
			continue
		}
		if v, err := strconv.ParseFloat(lookup(phase, []string{"concurrency"}), 64); err == nil {
			return Load{"concurrency", v}
		}
		for _, name := range []string{"rate", "request_rate"} {
			if v, err := strconv.ParseFloat(lookup(phase, []string{name}), 64); err == nil {
				return Load{"rate", v}
			}
		}
	}
	return Load{}
}

// models are the names in the configuration: model_names of genai-perf,
// models.items of aiperf.
func (g *genaiSummary) models() string {
	var all []string
	list, _ := g.config["model_names"].([]any)
	if m, ok := g.config["models"].(map[string]any); ok {
		items, _ := m["items"].([]any)
		for _, item := range items {
			list = append(list, lookup(item, []string{"name"}))
		}
	}
	for _, name := range list {
		if s, ok := name.(string); ok {
			all = append(all, s)
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// csvMetrics are the rows of genai-perf's and aiperf's CSV that are read.
var csvMetrics = map[string]string{
	"Time To First Token (ms)": "time_to_first_token", "Time to First Token (ms)": "time_to_first_token",
	"Inter Token Latency (ms)": "inter_token_latency", "Request Latency (ms)": "request_latency",
	"Output Sequence Length (tokens)": "output_sequence_length", "Input Sequence Length (tokens)": "input_sequence_length",
	"Output Token Throughput (tokens/sec)": "output_token_throughput", "Request Throughput (per sec)": "request_throughput",
	"Request Throughput (requests/sec)": "request_throughput", "Request Count (count)": "request_count", "Request Count": "request_count",
	"Request Count (requests)": "request_count", "Error Request Count (requests)": "error_request_count",
}

// readGenaiCSV reads the CSV export: a table of metrics, a blank line, a table of
// values.
func readGenaiCSV(b []byte) (*genaiSummary, error) {
	c := csv.NewReader(bytes.NewReader(b))
	c.FieldsPerRecord = -1
	g := &genaiSummary{metrics: map[string]statistic{}}
	var head []string
	for {
		row, err := c.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("not a CSV of genai-perf: %w", err)
		}
		if row[0] == "Metric" {
			head = row
			continue
		}
		name, ok := csvMetrics[row[0]]
		if !ok || head == nil {
			continue
		}
		s, err := csvStatistic(head, row)
		if err != nil {
			return nil, fmt.Errorf("row %q: %w", row[0], err)
		}
		g.metrics[name] = s
	}
	if len(g.metrics) == 0 {
		return nil, errors.New("no metrics")
	}
	return g, nil
}

func csvStatistic(head, row []string) (statistic, error) {
	s := statistic{Unit: "ms"}
	for i, text := range row[1:] {
		if i+1 >= len(head) || text == "" {
			continue
		}
		v, err := strconv.ParseFloat(strings.ReplaceAll(text, ",", ""), 64)
		if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
			return s, fmt.Errorf("%s is %q; want a number", head[i+1], text)
		}
		into := map[string]**float64{"avg": &s.Avg, "Value": &s.Avg, "p1": &s.P1, "p5": &s.P5, "p10": &s.P10, "p25": &s.P25,
			"p50": &s.P50, "p75": &s.P75, "p90": &s.P90, "p95": &s.P95, "p99": &s.P99}[head[i+1]]
		if into != nil {
			*into = &v
		}
	}
	return s, nil
}

// run is a run of which only a summary is left.
func (g *genaiSummary) run(tool string) *Run {
	r := &Run{Tool: tool, Models: map[string]Totals{g.models(): {}}}
	g.apply(r)
	r.Workload.Load = g.stimulus()
	r.Workload.Fields = fields(map[string]string{"models": g.models()})
	if l := r.Workload.Load; l.Kind != "" {
		r.Workload.Fields = append(r.Workload.Fields, Field{l.Kind, trimZero(l.Value)})
	}
	g.describe(r, tool)
	r.Notes = append(r.Notes, "a summary without records: intervals come from the repeats alone")
	return r
}

// join completes a run made of records.
func (g *genaiSummary) join(r *Run, tool string) {
	if models := g.models(); models != "" && len(r.Models) == 1 {
		for i := range r.Requests {
			r.Requests[i].Model = models
		}
		r.Models = map[string]Totals{models: r.Total}
		r.Workload.Fields = append(r.Workload.Fields, Field{"models", models})
	}
	g.apply(r)
	if l := g.stimulus(); r.Workload.Load.Kind == "" && l.Kind != "" {
		r.Workload.Load = l
		r.Workload.Fields = append(r.Workload.Fields, Field{l.Kind, trimZero(l.Value)})
	}
	if g.version != "" {
		tool += " " + g.version
		r.Tool = tool
	}
	g.describe(r, tool)
}
