package poll

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.uber.org/goleak"

	"lbd/balancer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func scan(text string) (balancer.Sample, int) {
	var p page
	n := p.scan([]byte(text))
	return p.sample(), n
}

func golden(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var k = balancer.Known

func TestScanPages(t *testing.T) {
	for name, want := range map[string]balancer.Sample{
		"v0.6.4.txt": {
			Running: k(3), Waiting: k(7), KVUsage: k(0.12345678901234568), PromptTokens: k(1234567), GenerationTokens: k(98765),
			KVTokens: k(27925 * 16), PrefixCaching: k(0),
		},
		"v0.19.txt": {
			Running: k(2), Waiting: k(0), KVUsage: k(0.0023456789), PrefixQueries: k(20480), PrefixHits: k(5120),
			PromptTokens: k(20480), GenerationTokens: k(4096), StartTime: k(1.79528186236e+09),
		},
		"engines.txt": {
			Running: k(8), Waiting: k(12), KVUsage: k(0.75), KVMean: k(0.5), PrefixQueries: k(600), PrefixHits: k(60),
			PromptTokens: k(6), GenerationTokens: k(15),
		},
		// The larger of a pid's, then the sum over engines.
		"pids.txt": {Running: k(4), Waiting: k(8), KVUsage: k(0.5), PrefixQueries: k(30)},
		"rust.txt": {Running: k(2), Waiting: k(1), PromptTokens: k(512), GenerationTokens: k(64)},
	} {
		got, _ := scan(golden(t, name))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		// The order of families and series means nothing.
		lines := strings.SplitAfter(golden(t, name), "\n")
		for i, j := 0, len(lines)-1; i < j; i, j = i+1, j-1 {
			lines[i], lines[j] = lines[j], lines[i]
		}
		if got, _ := scan(strings.Join(lines, "")); !cmp.Equal(want, got) {
			t.Errorf("%s backwards: %s", name, cmp.Diff(want, got))
		}
	}
}

func TestScanLines(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       balancer.Metric // of running
	}{
		{"integer", "vllm:num_requests_running 3\n", k(3)},
		{"float", "vllm:num_requests_running{a=\"b\"} 3.5\n", k(3.5)},
		{"exponent", "vllm:num_requests_running{} 1e+06\n", k(1e6)},
		{"timestamp", "vllm:num_requests_running{a=\"b\"} 3 1795281862366\n", k(3)},
		{"carriage return", "vllm:num_requests_running 3\r\n", k(3)},
		{"blanks", " \tvllm:num_requests_running { a = \"b\" , } \t 3 \n", k(3)},
		{"no blank", "vllm:num_requests_running{a=\"b\"}3\n", k(3)},
		{"escapes", `vllm:num_requests_running{a="}\"\\",b="\n,c=\"}"} 3` + "\n", k(3)},
		{"labels in any order", "vllm:num_requests_running{a=\"1\",b=\"2\"} 3\nvllm:num_requests_running{b=\"2\",a=\"1\"} 4\n", k(4)},
		{"labels swapped", "vllm:num_requests_running{a=\"1\",b=\"2\"} 3\nvllm:num_requests_running{a=\"2\",b=\"1\"} 4\n", k(7)},
		{"broken line between", "vllm:num_requests_running{e=\"0\"} 3\nvllm:num_requests_running{e=\"1} 4\nvllm:num_requests_running{e=\"2\"} x\n\x00\xff\nvllm:num_requests_running{e=\"3\"} 5\n", k(8)},
		{"unfinished line", "vllm:num_requests_running{e=\"0\"} 3\nvllm:num_requests_running{e=\"1\"} 12", k(3)},
		{"nan", "vllm:num_requests_running{e=\"0\"} NaN\nvllm:num_requests_running{e=\"1\"} 4\n", balancer.Metric{}},
		{"infinite", "vllm:num_requests_running +Inf\n", balancer.Metric{}},
		{"negative", "vllm:num_requests_running -1\n", balancer.Metric{}},
		{"go syntax", "vllm:num_requests_running 0x1p4\n", balancer.Metric{}},
		{"longer name", "vllm:num_requests_running_total 3\n", balancer.Metric{}},
		{"comment", "# vllm:num_requests_running 3\n", balancer.Metric{}},
		{"no value", "vllm:num_requests_running\nvllm:num_requests_running{a=\"b\"}\nvllm:num_requests_running \n", balancer.Metric{}},
		{"nothing", "", balancer.Metric{}},
		{"html", "<html>vllm:num_requests_running 3</html>\n", balancer.Metric{}},
	} {
		if got, _ := scan(tt.text); got.Running != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got.Running, tt.want)
		}
	}
}

func TestScanTellsKVNamesApart(t *testing.T) {
	both := "vllm:gpu_cache_usage_perc 0.9\nvllm:kv_cache_usage_perc 0.2\n"
	if got, _ := scan(both); got.KVUsage != k(0.2) {
		t.Errorf("KV %+v, want the V1 name's", got.KVUsage)
	}
	if got, _ := scan("vllm:gpu_cache_usage_perc 0.9\nvllm:kv_cache_usage_perc NaN\n"); got.KVUsage != k(0.9) {
		t.Errorf("KV %+v, want the one that is known", got.KVUsage)
	}
}

func TestScanIsBoundedAndReusable(t *testing.T) {
	var b strings.Builder
	for i := range 5000 {
		b.WriteString("vllm:num_requests_running{e=\"" + strings.Repeat("x", i%97) + string(rune('a'+i%26)) + strings.Repeat("y", i/97) + "\"} 1\n")
	}
	var p page
	if n := p.scan([]byte(b.String())); n > maxSeries {
		t.Errorf("%d series kept", n)
	}
	if n := p.scan([]byte("vllm:num_requests_waiting 1\n")); n != 1 || p.sample().Running.Known {
		t.Errorf("a page shows in the next one: %+v", p.sample())
	}
	text := []byte(golden(t, "v0.19.txt"))
	if n := testing.AllocsPerRun(20, func() { p.scan(text) }); n != 0 {
		t.Errorf("%v allocations per page, want 0", n)
	}
}

// oracle reads a page with expfmt, which accepts less and knows more. ok is false
// where the two differ on purpose.
func oracle(text string) (balancer.Sample, bool) {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	if err != nil {
		return balancer.Sample{}, false
	}
	var p page
	for i, name := range sampleNames {
		f := families[name]
		if f == nil {
			continue
		}
		for _, m := range f.Metric {
			var v float64
			switch f.GetType() {
			case dto.MetricType_GAUGE:
				v = m.GetGauge().GetValue()
			case dto.MetricType_COUNTER:
				v = m.GetCounter().GetValue()
			case dto.MetricType_UNTYPED:
				v = m.GetUntyped().GetValue()
			default:
				return balancer.Sample{}, false
			}
			var key uint64
			for _, l := range m.Label {
				if l.GetName() != "pid" {
					key += fnv(fnv(fnvOffset, []byte(l.GetName())), []byte("="+l.GetValue()))
				}
			}
			p.add(series{i, key, v})
		}
	}
	return p.sample(), true
}

func same(a, b balancer.Metric) bool {
	return a.Known == b.Known && (a.Value == b.Value || math.Abs(a.Value-b.Value) <= 1e-9*math.Abs(a.Value))
}

func agree(a, b balancer.Sample) bool {
	return same(a.Running, b.Running) && same(a.Waiting, b.Waiting) && same(a.KVUsage, b.KVUsage) &&
		same(a.PrefixQueries, b.PrefixQueries) && same(a.PrefixHits, b.PrefixHits) &&
		same(a.PromptTokens, b.PromptTokens) && same(a.GenerationTokens, b.GenerationTokens) && same(a.StartTime, b.StartTime)
}

func TestScanAgreesWithExpfmt(t *testing.T) {
	for _, name := range []string{"v0.6.4.txt", "v0.19.txt", "engines.txt", "pids.txt"} {
		want, ok := oracle(golden(t, name))
		if got, _ := scan(golden(t, name)); !ok || !agree(want, got) {
			t.Errorf("%s: expfmt (read: %v) and scan differ:\n%s", name, ok, cmp.Diff(want, got))
		}
	}
	if _, ok := oracle(golden(t, "rust.txt")); ok {
		t.Log("expfmt now reads the OpenMetrics page, too")
	}
}

// wellFormed are the lines on which expfmt and scan have to agree: those of the
// text format's own grammar (Prometheus, docs/instrumenting/exposition_formats.md).
// Outside it each is lax in its own way; expfmt reads "name.5e9" as a name and its
// value, scan takes the carriage return of a page written elsewhere.
var wellFormed = func() *regexp.Regexp {
	const (
		label  = `[a-zA-Z_][a-zA-Z0-9_]*[ \t]*=[ \t]*"(?:[^"\\]|\\[\\"n])*"`
		labels = `\{[ \t]*(?:` + label + `[ \t]*(?:,[ \t]*` + label + `[ \t]*)*(?:,[ \t]*)?)?\}`
		value  = `(?:[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]Inf|NaN)`
		sample = `[a-zA-Z_:][a-zA-Z0-9_:]*(?:[ \t]*` + labels + `[ \t]*|[ \t]+)` + value + `(?:[ \t]+-?[0-9]+)?[ \t]*`
	)
	return regexp.MustCompile(`^[ \t]*(?:#.*|` + sample + `)?$`)
}()

// readByBoth says whether a page is one that expfmt's reading of binds scan.
func readByBoth(text string) bool {
	lines := strings.Split(text, "\n")
	if lines[len(lines)-1] != "" {
		return false // an unfinished line
	}
	for _, line := range lines {
		if !utf8.ValidString(line) || !wellFormed.MatchString(line) {
			return false
		}
	}
	return true
}

func TestReadByBoth(t *testing.T) {
	for text, want := range map[string]bool{
		"": true, "\n \n# x\n": true, "a 1\n": true, "a{} 1\n": true, `a { b = "}\"\\\n" , } +1.5e-3 -12 ` + "\n": true, "a{b=\"c\"}.5\n": true, "a NaN\na -Inf\n": true,
		"a 1": false, "a.5e9\n": false, "a 0x1p4\n": false, "a 1_0\n": false, "a inf\n": false, "a 1\r\n": false, "a{b=\"\\t\"} 1\n": false, "a{,} 1\n": false,
		"a{b=\"c\"x} 1\n": false, "a 1 2.5\n": false, "a\n": false, "a{b=\"\xff\"} 1\n": false, "a 1 # {} 1\n": false, "a{\"b\"} 1\n": false,
	} {
		if got := readByBoth(text); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
	for _, name := range []string{"v0.6.4.txt", "v0.19.txt", "engines.txt", "pids.txt"} {
		if !readByBoth(golden(t, name)) {
			t.Errorf("%s is not compared", name)
		}
	}
}

func FuzzScan(f *testing.F) {
	for _, name := range []string{"v0.6.4.txt", "engines.txt", "pids.txt", "rust.txt"} {
		f.Add(golden(f, name))
	}
	f.Add("vllm:num_requests_running{a=\"\\\\\\\"\\n\",pid=\"1\",} 3 4\nprocess_start_time_seconds 1.5e9\n")
	f.Add("# TYPE vllm:num_requests_waiting histogram\nvllm:num_requests_waiting 1\n")
	f.Add("process_start_time_seconds.5e9\n")
	f.Fuzz(func(t *testing.T, text string) {
		got, n := scan(text)
		if n > maxSeries {
			t.Fatalf("%d series", n)
		}
		for _, m := range []balancer.Metric{got.Running, got.Waiting, got.KVUsage, got.PromptTokens, got.GenerationTokens,
			got.PrefixQueries, got.PrefixHits, got.StartTime, got.KVTokens, got.PrefixCaching} {
			if m.Known && (!(m.Value >= 0) || math.IsInf(m.Value, 0)) || !m.Known && m.Value != 0 {
				t.Fatalf("metric %+v makes no sense", m)
			}
		}
		if n == maxSeries || !readByBoth(text) {
			return
		}
		if want, ok := oracle(text); ok && !agree(want, got) {
			t.Errorf("expfmt and scan differ on %q:\n%s", text, cmp.Diff(want, got))
		}
	})
}

func BenchmarkScan(b *testing.B) {
	for _, name := range []string{"v0.19.txt", "v0.6.4.txt"} {
		b.Run(name, func(b *testing.B) {
			text := []byte(golden(b, name))
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			var p page
			for b.Loop() {
				p.scan(text)
			}
		})
	}
}

func BenchmarkExpfmt(b *testing.B) {
	text := []byte(golden(b, "v0.19.txt"))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		parser := expfmt.NewTextParser(model.LegacyValidation)
		if _, err := parser.TextToMetricFamilies(bytes.NewReader(text)); err != nil {
			b.Fatal(err)
		}
	}
}

func TestScanCacheConfig(t *testing.T) {
	for labels, want := range map[string]balancer.Sample{
		`{block_size="16",num_gpu_blocks="27925",enable_prefix_caching="True"}`:  {KVTokens: k(446800), PrefixCaching: k(1)},
		`{ num_gpu_blocks = "100" , x="a,\"num_gpu_blocks=" , block_size="16" }`: {KVTokens: k(1600)},
		`{block_size="16",num_gpu_blocks="None",enable_prefix_caching="False"}`:  {PrefixCaching: k(0)},
		`{block_size="16",num_gpu_blocks="-1"}`:                                  {},
		`{block_size="16"}`:                                                      {},
		`{}`:                                                                     {},
		``:                                                                       {},
	} {
		got, _ := scan("vllm:cache_config_info" + labels + " 1.0\n")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", labels, diff)
		}
	}
	// Two engines behind one server, each seen by two of its processes.
	page := ""
	for _, engine := range []string{"0", "1"} {
		for _, pid := range []string{"7", "8"} {
			page += `vllm:cache_config_info{block_size="16",engine="` + engine + `",num_gpu_blocks="100",pid="` + pid + `"} 1` + "\n"
		}
	}
	if got, _ := scan(page); got.KVTokens != k(3200) {
		t.Errorf("%v tokens of two engines, want 3200", got.KVTokens)
	}
}

// KV use of the engines of one server: the fullest is the guard, the mean what is held.
func TestScanKVOfSeveralEngines(t *testing.T) {
	known, unknown := balancer.Known, balancer.Metric{}
	for _, c := range []struct {
		page          string
		largest, mean balancer.Metric
	}{
		{"vllm:kv_cache_usage_perc{engine=\"0\"} 0.5\n", known(0.5), unknown},
		{"vllm:kv_cache_usage_perc{engine=\"0\"} 0.5\nvllm:kv_cache_usage_perc{engine=\"1\"} 0.25\n", known(0.5), known(0.375)},
		{"vllm:kv_cache_usage_perc{engine=\"0\"} 0.5\nvllm:kv_cache_usage_perc{engine=\"1\"} NaN\n", known(0.5), unknown},
		// Processes of one server, and two names of one thing, are no engines.
		{"vllm:kv_cache_usage_perc{pid=\"7\"} 0.5\nvllm:kv_cache_usage_perc{pid=\"8\"} 0.25\n", known(0.5), unknown},
		{"vllm:kv_cache_usage_perc{engine=\"0\"} 0.5\nvllm:gpu_cache_usage_perc{engine=\"0\"} 0.5\n", known(0.5), unknown},
		{"vllm:gpu_cache_usage_perc{engine=\"0\"} 0.5\nvllm:gpu_cache_usage_perc{engine=\"1\"} 0.25\n", known(0.5), known(0.375)},
	} {
		var p page
		p.scan([]byte(c.page))
		if s := p.sample(); s.KVUsage != c.largest || s.KVMean != c.mean {
			t.Errorf("%q: largest %v, mean %v; want %v and %v", c.page, s.KVUsage, s.KVMean, c.largest, c.mean)
		}
	}
}
