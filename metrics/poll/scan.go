package poll

import (
	"bytes"
	"math"
	"strconv"

	"lbd/balancer"
)

// The samples that are read, in order of preference where a meaning has several
// names over vLLM's versions (V1 first).
const (
	running = iota
	waiting
	kvUsage
	gpuUsage // V0, and V1 before v0.11
	prefixQueries
	prefixHits
	gpuPrefixQueries // V1 of v0.8
	gpuPrefixHits
	promptTokens
	generationTokens
	startTime
	cacheConfig // its value is 1; what counts are its labels
	numNames
)

// prefixCaching is what a label of cacheConfig says, as if it were a sample.
const prefixCaching = numNames

// sampleNames are exact sample names, as name[] of a cheap poll wants them.
var sampleNames = [numNames]string{
	running:          "vllm:num_requests_running",
	waiting:          "vllm:num_requests_waiting",
	kvUsage:          "vllm:kv_cache_usage_perc",
	gpuUsage:         "vllm:gpu_cache_usage_perc",
	prefixQueries:    "vllm:prefix_cache_queries_total",
	prefixHits:       "vllm:prefix_cache_hits_total",
	gpuPrefixQueries: "vllm:gpu_prefix_cache_queries_total",
	gpuPrefixHits:    "vllm:gpu_prefix_cache_hits_total",
	promptTokens:     "vllm:prompt_tokens_total",
	generationTokens: "vllm:generation_tokens_total",
	startTime:        "process_start_time_seconds",
	cacheConfig:      "vllm:cache_config_info",
}

// series is one time series of one name. Its key is the sum of the hashes of its
// labels, so their order does not matter; pid is left out, since the processes
// of one server each report the same thing (vLLM #17546, #18053).
type series struct {
	name  int
	key   uint64
	value float64
}

// page collects series of one exposition. It is reused between polls.
type page struct {
	series []series
	// unreadable counts lines of our samples that are no samples.
	unreadable int
}

// scan reads a page in the Prometheus text format, or the OpenMetrics one of
// vLLM's Rust front end: own sample lines only, each on its own, so a page with
// a line nobody can read still gives the others. An unfinished last line is left
// out: its number may be cut. It returns the number of samples found.
//
// It is not expfmt because that decodes all 377 lines of a V1 page, at over a
// hundred times the cost (BenchmarkScan), and refuses a page as a whole.
func (p *page) scan(b []byte) int {
	p.series, p.unreadable = p.series[:0], 0
	for len(b) > 0 {
		end := bytes.IndexByte(b, '\n')
		if end < 0 {
			break
		}
		p.line(b[:end])
		b = b[end+1:]
	}
	return len(p.series)
}

func (p *page) line(b []byte) {
	b = skipBlank(b)
	name := nameOf(b)
	if name < 0 {
		return
	}
	b = skipBlank(b[len(sampleNames[name]):])
	braces := b
	key, b, ok := labels(b)
	if !ok {
		p.unreadable++
		return
	}
	value, ok := number(skipBlank(b))
	if !ok {
		p.unreadable++
		return
	}
	if name == cacheConfig {
		p.addCache(key, braces)
		return
	}
	p.add(series{name, key, value})
}

// addCache turns the labels of cache_config_info into samples: how many tokens the
// KV cache holds, and whether prompts are kept in it. vLLM v0.8 says "None" for the
// number of blocks: unknown.
func (p *page) addCache(key uint64, braces []byte) {
	blocks, _ := number(labelValue(braces, "num_gpu_blocks"))
	size, _ := number(labelValue(braces, "block_size"))
	if tokens := blocks * size; tokens > 0 {
		p.add(series{cacheConfig, key, tokens})
	}
	switch string(labelValue(braces, "enable_prefix_caching")) {
	case "True":
		p.add(series{prefixCaching, key, 1})
	case "False":
		p.add(series{prefixCaching, key, 0})
	}
}

// labelValue returns what stands between the quotes of a label, as it is escaped;
// nil when there is no such label. The braces were read by labels before.
func labelValue(braces []byte, name string) []byte {
	for b := braces; len(b) > 1; {
		b = bytes.TrimLeft(b[1:], " \t") // behind the brace or the comma
		eq := bytes.IndexByte(b, '=')
		if eq < 0 {
			return nil
		}
		found := string(bytes.TrimRight(b[:eq], " \t")) == name
		b = skipBlank(b[eq+1:])
		end := quoteEnd(b)
		if end < 0 {
			return nil
		}
		if found {
			return b[1:end]
		}
		b = skipBlank(b[end+1:])
	}
	return nil
}

// add keeps the larger of two values of the same series.
func (p *page) add(s series) {
	for i := range p.series {
		if o := &p.series[i]; o.name == s.name && o.key == s.key {
			if math.IsNaN(o.value) || s.value > o.value {
				o.value = s.value
			}
			return
		}
	}
	if len(p.series) < maxSeries {
		p.series = append(p.series, s)
	}
}

// maxSeries bounds what a broken page can make of the linear search: thirteen
// names for 76 engines. The widest known deployment has 8 engines per server.
const maxSeries = 1000

// nameOf returns which sample the line is, -1 for none. Most lines of a page are
// another vllm: family or a comment, so the bytes after the prefix decide fast.
func nameOf(b []byte) int {
	if len(b) < len("vllm:x") || b[0] != 'v' && b[0] != 'p' {
		return -1
	}
	for i, name := range sampleNames {
		if len(b) > len(name) && b[5] == name[5] && b[len(name)-1] == name[len(name)-1] && string(b[:len(name)]) == name {
			if c := b[len(name)]; c == '{' || blank(c) {
				return i
			}
		}
	}
	return -1
}

func blank(c byte) bool { return c == ' ' || c == '\t' }

func skipBlank(b []byte) []byte {
	for len(b) > 0 && blank(b[0]) {
		b = b[1:]
	}
	return b
}

// labels reads {name="value",…}, which may be missing, and returns what follows.
func labels(b []byte) (key uint64, rest []byte, ok bool) {
	if len(b) == 0 || b[0] != '{' {
		return 0, b, true
	}
	b = b[1:]
	for {
		b = skipBlank(b)
		if len(b) > 0 && b[0] == '}' {
			return key, b[1:], true
		}
		hash, after, ok := label(b)
		if !ok {
			return 0, nil, false
		}
		key += hash
		b = skipBlank(after)
		switch {
		case len(b) > 0 && b[0] == ',':
			b = b[1:]
		case len(b) == 0 || b[0] != '}':
			return 0, nil, false
		}
	}
}

// label reads name="value". The hash covers the value as it is escaped, which is
// one way only.
func label(b []byte) (hash uint64, rest []byte, ok bool) {
	eq := bytes.IndexByte(b, '=')
	if eq <= 0 {
		return 0, nil, false
	}
	name := bytes.TrimRight(b[:eq], " \t")
	b = skipBlank(b[eq+1:])
	if len(b) == 0 || b[0] != '"' {
		return 0, nil, false
	}
	end := quoteEnd(b)
	if end < 0 {
		return 0, nil, false
	}
	if string(name) == "pid" {
		return 0, b[end+1:], true
	}
	return fnv(fnv(fnvOffset, name), b[:end]), b[end+1:], true
}

// quoteEnd returns where the string that begins b ends.
func quoteEnd(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}

// FNV-1a, 64 bits.
const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

func fnv(h uint64, b []byte) uint64 {
	for _, c := range b {
		h = (h ^ uint64(c)) * fnvPrime
	}
	return h
}

// number reads the value and lets a timestamp or an exemplar after it be.
func number(b []byte) (float64, bool) {
	end := 0
	for end < len(b) && !blank(b[end]) && b[end] != '\r' {
		if c := b[end]; c == '_' || c == 'p' || c == 'P' {
			return 0, false // Go's syntax, not Prometheus's
		}
		end++
	}
	if end == 0 {
		return 0, false
	}
	v, err := strconv.ParseFloat(string(b[:end]), 64) // on the stack: it is short
	return v, err == nil
}

// sample adds the series up. Requests and tokens of several engines behind one
// server are summed, KV use is the largest: the fullest engine is the one that
// makes requests wait.
func (p *page) sample() balancer.Sample {
	return balancer.Sample{
		Running:          p.sum(running),
		Waiting:          p.sum(waiting),
		KVUsage:          firstKnown(p.largest(kvUsage), p.largest(gpuUsage)),
		KVMean:           firstKnown(p.mean(kvUsage), p.mean(gpuUsage)),
		PrefixQueries:    firstKnown(p.sum(prefixQueries), p.sum(gpuPrefixQueries)),
		PrefixHits:       firstKnown(p.sum(prefixHits), p.sum(gpuPrefixHits)),
		PromptTokens:     p.sum(promptTokens),
		GenerationTokens: p.sum(generationTokens),
		StartTime:        p.largest(startTime),
		KVTokens:         p.sum(cacheConfig),
		PrefixCaching:    p.largest(prefixCaching),
	}
}

// sum is unknown when one of the series is: a part would look like the whole.
func (p *page) sum(name int) balancer.Metric {
	m := balancer.Metric{}
	for _, s := range p.series {
		if s.name != name {
			continue
		}
		if !sensible(s.value) {
			return balancer.Metric{}
		}
		m = balancer.Known(m.Value + s.value)
	}
	return m
}

func (p *page) largest(name int) balancer.Metric {
	m := balancer.Metric{}
	for _, s := range p.series {
		if s.name == name && sensible(s.value) && (!m.Known || s.value > m.Value) {
			m = balancer.Known(s.value)
		}
	}
	return m
}

// mean is unknown when there are not several, or one of them is.
func (p *page) mean(name int) balancer.Metric {
	n := 0
	for _, s := range p.series {
		if s.name == name {
			n++
		}
	}
	m := p.sum(name)
	if n < 2 || !m.Known {
		return balancer.Metric{}
	}
	return balancer.Known(m.Value / float64(n))
}

// sensible refuses NaN, infinities and the negative numbers with which vLLM says
// "off".
func sensible(v float64) bool { return v >= 0 && !math.IsInf(v, 1) }

func firstKnown(a, b balancer.Metric) balancer.Metric {
	if a.Known {
		return a
	}
	return b
}
