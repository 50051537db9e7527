package export

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"lbd/bench/load"
)

// rawRequest is one request of genai-perf's raw export.
type rawRequest struct {
	Timestamp          int64         `json:"timestamp"`
	Inputs             rawInputs     `json:"request_inputs"`
	ResponseTimestamps []int64       `json:"response_timestamps"`
	ResponseOutputs    []rawResponse `json:"response_outputs"`
}

type rawInputs struct {
	Payload string `json:"payload"`
}

type rawResponse struct {
	Response string `json:"response"`
}

// endpointOf is the path as genai-perf names it; its reader looks at it to know
// the shape of the bodies.
func endpointOf(api load.API) string {
	if api == load.Completions {
		return "v1/completions"
	}
	return "v1/chat/completions"
}

// rawOf turns a record with what was kept into a request of the export.
func rawOf(res *load.Results, rec *load.Record) rawRequest {
	at := func(d time.Duration) int64 { return res.Started.Add(d).UnixNano() }
	q := rawRequest{Timestamp: at(rec.Scheduled), Inputs: rawInputs{string(rec.Kept.Body)}}
	if !rec.Stream {
		q.ResponseTimestamps = []int64{at(rec.End)}
		q.ResponseOutputs = []rawResponse{{wholeResponse(res.API, rec.Kept.Text)}}
		return q
	}
	when, from := rec.FirstContent, int32(0)
	for i, end := range rec.Kept.Ends {
		event := eventResponse(res.API, rec.Kept.Text[from:end])
		from = end
		if i > 0 {
			when += rec.Kept.Gaps[i-1]
		}
		if n := len(q.ResponseOutputs); n > 0 && q.ResponseTimestamps[n-1] == at(when) {
			q.ResponseOutputs[n-1].Response += event
			continue
		}
		q.ResponseTimestamps = append(q.ResponseTimestamps, at(when))
		q.ResponseOutputs = append(q.ResponseOutputs, rawResponse{event})
	}
	return q
}

// eventResponse wraps escaped text as one event.
func eventResponse(api load.API, text []byte) string {
	if api == load.Completions {
		return `data: {"object":"text_completion","choices":[{"index":0,"text":"` + string(text) + "\"}]}\n\n"
	}
	return `data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"` + string(text) + "\"}}]}\n\n"
}

func wholeResponse(api load.API, text []byte) string {
	if api == load.Completions {
		return `{"object":"text_completion","choices":[{"index":0,"text":"` + string(text) + `"}]}`
	}
	return `{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"` + string(text) + `"}}]}`
}

// loadOf is the mode and the level genai-perf keys an experiment with.
func loadOf(res *load.Results) (mode string, level float64) {
	if res.Mode == "closed" {
		return "concurrency", float64(res.Concurrency)
	}
	rate := 0.0
	if res.Seconds > 0 {
		rate = float64(res.Requests) / res.Seconds
	}
	return "request_rate", math.Round(rate*100) / 100
}

// writeRaw writes profile_export.json request by request: the whole document
// would take the memory of the run once more.
func writeRaw(path string, res *load.Results) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	mode, level := loadOf(res)
	fmt.Fprintf(w, `{"experiments":[{"experiment":{"mode":%q,"value":%s},"requests":[`, mode, strconv.FormatFloat(level, 'f', -1, 64))
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	separator := ""
	for i := range res.Records {
		if rec := &res.Records[i]; rec.Kept != nil && measured(rec) {
			w.WriteString(separator)
			err = errors.Join(err, encoder.Encode(rawOf(res, rec)))
			separator = ","
		}
	}
	first, last := window(res)
	fmt.Fprintf(w, `],"window_boundaries":[%d,%d]}],"version":%q,"service_kind":"openai","endpoint":%q}`+"\n", first, last, res.Tool, endpointOf(res.API))
	return errors.Join(err, w.Flush(), f.Close())
}

// window is when the measured part began and ended.
func window(res *load.Results) (first, last int64) {
	for i := range res.Records {
		rec := &res.Records[i]
		if !measured(rec) {
			continue
		}
		from, to := res.Started.Add(rec.Scheduled).UnixNano(), res.Started.Add(rec.End).UnixNano()
		if first == 0 || from < first {
			first = from
		}
		last = max(last, to)
	}
	return first, last
}

// measured tells whether a record is in the figures.
func measured(rec *load.Record) bool { return rec.OK() && !rec.Warmup }

// statistic is one of genai-perf's metrics; of a rate or a count only the average
// is written.
type statistic struct {
	name, unit string
	values     []float64
	single     bool
}

// statistics are genai-perf's metrics in the order of its CSV.
func statistics(res *load.Results) []statistic {
	var ttft, second, latency, itl, perUser, out, in []float64
	for i := range res.Records {
		rec := &res.Records[i]
		if !measured(rec) {
			continue
		}
		end := rec.End
		if rec.Events > 0 {
			end = rec.LastContent
			ttft = append(ttft, ms(rec.TTFT()))
			if rec.Kept != nil && len(rec.Kept.Gaps) > 0 {
				second = append(second, ms(rec.Kept.Gaps[0]))
			}
			if tpot := ms(rec.TPOT()); tpot > 0 {
				itl = append(itl, tpot)
				perUser = append(perUser, 1000/tpot)
			}
		}
		latency = append(latency, ms(end-rec.Scheduled))
		if rec.OutputTokens > 0 {
			out, in = append(out, float64(rec.OutputTokens)), append(in, float64(rec.PromptTokens))
		}
	}
	all := []statistic{
		{"time_to_first_token", "ms", ttft, false},
		{"time_to_second_token", "ms", second, false},
		{"request_latency", "ms", latency, false},
		{"inter_token_latency", "ms", itl, false},
		{"output_token_throughput_per_user", "tokens/sec/user", perUser, false},
		{"output_sequence_length", "tokens", out, false},
		{"input_sequence_length", "tokens", in, false},
		{"output_token_throughput", "tokens/sec", []float64{res.OutputTokensPerSecond}, true},
		{"request_throughput", "requests/sec", []float64{res.RequestsPerSecond}, true},
		{"request_count", "requests", []float64{float64(res.OK)}, true},
	}
	if res.GoodputPerSecond != nil {
		all = append(all, statistic{"request_goodput", "requests/sec", []float64{*res.GoodputPerSecond}, true})
	}
	for _, s := range all {
		slices.Sort(s.values)
	}
	return slices.DeleteFunc(all, func(s statistic) bool { return len(s.values) == 0 })
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// csvColumns are those of genai-perf's CSV, in its order.
var csvColumns = []string{"avg", "min", "max", "p99", "p95", "p90", "p75", "p50", "p25", "p10", "p5", "p1"}

// at is the statistic's value by its name in genai-perf.
func (s *statistic) at(name string) float64 {
	n := len(s.values)
	switch name {
	case "min":
		return s.values[0]
	case "max":
		return s.values[n-1]
	case "avg":
		return s.mean()
	case "std":
		return s.deviation()
	}
	q, err := strconv.Atoi(strings.TrimPrefix(name, "p"))
	if err != nil {
		panic("BUG: export: statistic " + name)
	}
	return load.Percentile(s.values, float64(q)/100)
}

func (s *statistic) mean() float64 {
	sum := 0.0
	for _, v := range s.values {
		sum += v
	}
	return sum / float64(len(s.values))
}

// deviation is that of the population, as numpy.std is by default.
func (s *statistic) deviation() float64 {
	mean, sum := s.mean(), 0.0
	for _, v := range s.values {
		sum += (v - mean) * (v - mean)
	}
	return math.Sqrt(sum / float64(len(s.values)))
}

// summary is the object of profile_export_genai_perf.json.
func summary(res *load.Results) map[string]any {
	document := map[string]any{"input_config": inputConfig(res), "telemetry_stats": map[string]any{}}
	for _, s := range statistics(res) {
		values := map[string]any{"unit": s.unit, "avg": s.mean()}
		if !s.single {
			for _, name := range append(csvColumns[1:], "std") {
				values[name] = s.at(name)
			}
		}
		document[s.name] = values
	}
	return document
}

// inputConfig says what was asked for. genai-perf has its own flags there.
func inputConfig(res *load.Results) map[string]any {
	mode, level := loadOf(res)
	return map[string]any{
		"tool": res.Tool, "url": res.Target, "endpoint": endpointOf(res.API), "seed": res.Seed, "workload": res.Workload, mode: level,
	}
}

// csvNames are the headings of genai-perf's CSV; the last three kinds of line are
// in its second table.
var csvNames = map[string]string{
	"time_to_first_token":              "Time To First Token (ms)",
	"time_to_second_token":             "Time To Second Token (ms)",
	"request_latency":                  "Request Latency (ms)",
	"inter_token_latency":              "Inter Token Latency (ms)",
	"output_token_throughput_per_user": "Output Token Throughput Per User (tokens/sec/user)",
	"output_sequence_length":           "Output Sequence Length (tokens)",
	"input_sequence_length":            "Input Sequence Length (tokens)",
	"output_token_throughput":          "Output Token Throughput (tokens/sec)",
	"request_throughput":               "Request Throughput (per sec)",
	"request_count":                    "Request Count (count)",
	"request_goodput":                  "Request Goodput (per sec)",
}

func writeCSV(path string, res *load.Results) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := csv.NewWriter(f)
	w.UseCRLF = true // Python's csv.writer does
	rows := [][]string{append([]string{"Metric"}, csvColumns...)}
	systems := [][]string{{"Metric", "Value"}}
	for _, s := range statistics(res) {
		row := []string{csvNames[s.name]}
		if s.single {
			systems = append(systems, append(row, grouped(s.mean())))
			continue
		}
		for _, column := range csvColumns {
			row = append(row, grouped(s.at(column)))
		}
		rows = append(rows, row)
	}
	err = w.WriteAll(rows)
	if err == nil {
		_, err = f.WriteString("\r\n") // the writer would quote an empty row
	}
	if err == nil {
		err = w.WriteAll(systems)
	}
	return errors.Join(err, f.Close())
}

// grouped writes a number as genai-perf does: two decimals, commas between
// thousands.
func grouped(v float64) string {
	whole, decimals, _ := strings.Cut(strconv.FormatFloat(math.Abs(v), 'f', 2, 64), ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if v < 0 {
		whole = "-" + whole
	}
	return whole + "." + decimals
}
