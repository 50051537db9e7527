package trace

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func collect(t *testing.T, tr *Trace) []Arrival {
	t.Helper()
	all, err := tr.Collect()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func zipped(t *testing.T, plain []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func readTestdata(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestAzure(t *testing.T) {
	file := readTestdata(t, "azure.csv")
	if !bytes.Contains(file, []byte("\r\n")) || bytes.HasSuffix(file, []byte("\n")) {
		t.Fatal("testdata/azure.csv has lost the line ends of the original")
	}
	// Differences of the stamps :46.6805900, :50.9951690, :51.2224670, :51.3910170.
	want := []Arrival{
		{At: 0, PromptTokens: 374, OutputTokens: 44},
		{At: 4314579 * time.Microsecond, PromptTokens: 396, OutputTokens: 109},
		{At: 4541877 * time.Microsecond, PromptTokens: 879, OutputTokens: 55},
	}
	for name, in := range map[string][]byte{"plain": file, "gzip": zipped(t, file)} {
		got := collect(t, Azure(bytes.NewReader(in)))
		if diff := cmp.Diff(want, got[:3]); diff != "" || len(got) != 4 {
			t.Errorf("%s: %d rows, want 4: %s", name, len(got), diff)
		}
	}
}

func TestAzure2024Stamps(t *testing.T) {
	in := azureHead + "\n2024-05-12 00:00:00.003935+00:00,10,1\n2024-05-12 00:00:01.003936+00:00,20,2\n"
	got := collect(t, Azure(strings.NewReader(in)))
	if len(got) != 2 || got[1].At != 1000001*time.Microsecond {
		t.Errorf("%+v", got)
	}
}

func TestAzureHundredNanoseconds(t *testing.T) {
	in := azureHead + "\r\n2023-11-16 18:15:46.6805900,1,1\r\n2023-11-16 18:15:46.6805901,1,1"
	if got := collect(t, Azure(strings.NewReader(in))); got[1].At != 100 {
		t.Errorf("%v after the first, want 100ns", got[1].At)
	}
}

func TestMooncake(t *testing.T) {
	file := readTestdata(t, "mooncake.jsonl")
	got := collect(t, Mooncake(bytes.NewReader(zipped(t, file)), 1, 0))
	if len(got) != 6 {
		t.Fatalf("%d rows, want 6", len(got))
	}
	want := Arrival{PromptTokens: 2290, OutputTokens: 316, Blocks: []uint64{0, 42, 43, 44, 45}}
	if diff := cmp.Diff(want, got[0]); diff != "" {
		t.Error(diff)
	}
	if tr := Mooncake(nil, 1, 0); tr.BlockTokens != 512 {
		t.Errorf("blocks of %d tokens", tr.BlockTokens)
	}
}

// mooncakeRows makes n rows at each of the stamps (ms); output numbers the rows.
func mooncakeRows(n int, stamps ...int) string {
	var b strings.Builder
	row := 0
	for _, stamp := range stamps {
		for range n {
			row++
			fmt.Fprintf(&b, `{"timestamp": %d, "input_length": 600, "output_length": %d, "hash_ids": [1, %d]}`+"\n", stamp, row, row)
		}
	}
	return b.String()
}

func TestMooncakeIsSpreadOverItsQuantum(t *testing.T) {
	in := mooncakeRows(200, 0, 3000, 5999, 9000)
	read := func(seed uint64) []Arrival {
		return collect(t, Mooncake(strings.NewReader(in), seed, MooncakeQuantum))
	}
	got := read(1)
	if len(got) != 800 {
		t.Fatalf("%d arrivals, want 800", len(got))
	}
	stamps := []time.Duration{0, 3000, 5999, 9000}
	var perSecond [12]int
	seen := map[int]bool{}
	for i, a := range got {
		if i > 0 && a.At < got[i-1].At {
			t.Fatalf("arrival %d at %v after one at %v", i, a.At, got[i-1].At)
		}
		stamp := stamps[(a.OutputTokens-1)/200] * time.Millisecond
		if a.At < stamp || a.At >= stamp+MooncakeQuantum {
			t.Fatalf("row %d stamped %v arrives at %v", a.OutputTokens, stamp, a.At)
		}
		if seen[a.OutputTokens] || a.Blocks[1] != uint64(a.OutputTokens) {
			t.Fatalf("row %d: %+v", i, a)
		}
		seen[a.OutputTokens] = true
		perSecond[a.At/time.Second]++
	}
	// 200 in 3 s are 67 a second; five standard deviations of it are 33.
	for s, n := range perSecond {
		if n < 33 || n > 100 {
			t.Errorf("%d arrivals in second %d, want about 67", n, s)
		}
	}
	if diff := cmp.Diff(got, read(1)); diff != "" {
		t.Error("the same seed gives another trace")
	}
	if cmp.Equal(got, read(2)) {
		t.Error("another seed gives the same trace")
	}
}

func TestMalformedRowsNameTheirLine(t *testing.T) {
	azure := func(rows string) *Trace { return Azure(strings.NewReader(azureHead + "\r\n" + rows)) }
	moon := func(rows string) *Trace {
		return Mooncake(strings.NewReader(mooncakeRows(1, 0)+rows), 1, MooncakeQuantum)
	}
	const stamp = "2023-11-16 18:15:46.6805900"
	tests := []struct {
		name  string
		trace *Trace
		want  string
	}{
		{"empty", Azure(strings.NewReader("")), "line 1: empty file"},
		{"header", Azure(strings.NewReader("a,b\n")), `line 1: header "a,b"; want "TIMESTAMP`},
		{"fields", azure(stamp + ",1,1\r\n" + stamp + ",1"), `line 3: 2 fields`},
		{"stamp", azure("16/11/2023,1,1"), `line 2: TIMESTAMP "16/11/2023"`},
		{"order", azure(stamp + ",1,1\r\n\r\n2023-11-16 18:15:46.6805899,1,1"), `line 4: TIMESTAMP "2023-11-16 18:15:46.6805899" is before`},
		{"word", azure(stamp + ",x,1"), `line 2: ContextTokens "x"; want a whole number`},
		{"zero", azure(stamp + ",1,0"), `line 2: GeneratedTokens 0; want 1 to`},
		{"huge", azure(stamp + ",99999999999,1"), `line 2: ContextTokens 99999999999; want 1 to`},
		{"long line", azure(strings.Repeat("x", maxLine+1)), `line 2: longer than 1048576 bytes`},

		{"no JSON", moon("x\n"), "line 2: want one JSON object per line: invalid character"},
		{"no timestamp", moon(`{"input_length":1,"output_length":1,"hash_ids":[1]}`), "line 2: timestamp missing"},
		{"timestamp below 0", moon(`{"timestamp":-1}`), "line 2: timestamp missing or out of range"},
		{"no input", moon(`{"timestamp":1,"output_length":1,"hash_ids":[1]}`), "line 2: input_length 0; want 1 to"},
		{"no output", moon(`{"timestamp":1,"input_length":1,"hash_ids":[1]}`), "line 2: output_length 0; want 1 to"},
		{"blocks", moon(`{"timestamp":1,"input_length":513,"output_length":1,"hash_ids":[1]}`), "line 2: 1 hash_ids for 513 tokens; want 2"},
		{"block below 0", moon(`{"timestamp":1,"input_length":1,"output_length":1,"hash_ids":[-1]}`), "line 2: want one JSON object"},
		{"order", moon(mooncakeRows(1, 6000, 3000)), "line 3: timestamp 3000 is before"},
		{"gzip head", Azure(strings.NewReader("\x1f\x8bxx")), "damaged gzip head"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := tt.trace.Collect(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one with %q", err, tt.want)
			}
		})
	}
}

func TestReadErrorsPassThrough(t *testing.T) {
	broken := errors.New("disk gone")
	r := io.MultiReader(strings.NewReader(azureHead+"\n"), failing{broken})
	if _, err := Azure(r).Collect(); !errors.Is(err, broken) {
		t.Errorf("error %v, want %v", err, broken)
	}
	whole := zipped(t, []byte(strings.Repeat(mooncakeRows(1, 0), 100)))
	if _, err := Mooncake(bytes.NewReader(whole[:len(whole)-9]), 1, 0).Collect(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("error %v, want the cut", err)
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestOpen(t *testing.T) {
	tr, err := Open(filepath.Join("testdata", "azure.csv"), FormatAzure, 1)
	if err != nil {
		t.Fatal(err)
	}
	if first := collect(t, tr); len(first) != 4 || !cmp.Equal(first, collect(t, tr)) {
		t.Error("a file cannot be read twice")
	}
	if tr, err = Open(filepath.Join("testdata", "mooncake.jsonl"), FormatMooncake, 1); err != nil || tr.BlockTokens != MooncakeBlock {
		t.Errorf("%+v, %v", tr, err)
	}
	if _, err := Open("testdata/none", FormatAzure, 1); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v, want not found", err)
	}
	if _, err := Open("testdata/azure.csv", "csv", 1); err == nil || !strings.Contains(err.Error(), `"csv"; want azure, mooncake or access-log`) {
		t.Errorf("error %v", err)
	}
	tr, _ = Open("testdata/azure.csv", FormatMooncake, 1)
	if _, err := tr.Collect(); err == nil || !strings.HasPrefix(err.Error(), "testdata/azure.csv: line 1: ") {
		t.Errorf("error %v, want one with file and line", err)
	}
}

func at(seconds ...float64) []Arrival {
	var all []Arrival
	for i, s := range seconds {
		all = append(all, Arrival{At: time.Duration(s * float64(time.Second)), PromptTokens: i + 1, OutputTokens: 1})
	}
	return all
}

func times(all []Arrival) (s []float64) {
	for _, a := range all {
		s = append(s, a.At.Seconds())
	}
	return s
}

func TestWindowSpeedUpAndLimit(t *testing.T) {
	base := Of(16, at(0, 1, 2, 3, 4, 5)...)
	tests := []struct {
		name  string
		trace *Trace
		want  []float64
	}{
		{"window", base.Window(2*time.Second, 2*time.Second), []float64{0, 1}},
		{"window to the end", base.Window(4*time.Second, 0), []float64{0, 1}},
		{"window beyond the end", base.Window(time.Minute, 0), nil},
		{"speed-up", base.SpeedUp(4), []float64{0, .25, .5, .75, 1, 1.25}},
		{"slow-down", base.SpeedUp(.5), []float64{0, 2, 4, 6, 8, 10}},
		{"both", base.Window(2*time.Second, 2*time.Second).SpeedUp(2), []float64{0, .5}},
		{"first", base.First(2), []float64{0, 1}},
		{"first of none", base.First(0), nil},
		{"first of too many", base.First(99), []float64{0, 1, 2, 3, 4, 5}},
		{"limit", base.MaxTokens(3, nil), []float64{0, 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, times(collect(t, tt.trace))); diff != "" || tt.trace.BlockTokens != 16 {
				t.Error(diff)
			}
		})
	}
	dropped := 0
	collect(t, base.MaxTokens(3, func(Arrival) { dropped++ }))
	if dropped != 4 {
		t.Errorf("%d dropped, want 4", dropped)
	}
}

// Errors pass through every stage, and a caller that stops early is heeded.
func TestStagesPassErrorsAndStops(t *testing.T) {
	bad := errors.New("bad row")
	pulled := 0
	source := &Trace{Arrivals: func(yield func(Arrival, error) bool) {
		for _, a := range at(0, 1, 2) {
			pulled++
			if !yield(a, nil) {
				return
			}
		}
		yield(Arrival{}, bad)
	}}
	stages := source.Window(0, time.Hour).SpeedUp(2).MaxTokens(100, nil).First(9).WithModels(Mix{}, 1)
	if got, err := stages.Collect(); err != bad || len(got) != 3 {
		t.Errorf("%d arrivals and %v, want 3 and the error", len(got), err)
	}
	pulled = 0
	for range stages.Arrivals {
		break
	}
	if pulled != 1 {
		t.Errorf("%d arrivals pulled for one, want 1", pulled)
	}
	if got := slices.Collect(func(yield func(error) bool) {
		for _, err := range source.Window(0, time.Second).Arrivals {
			if !yield(err) {
				return
			}
		}
	}); len(got) != 1 {
		t.Errorf("%v: a window must not read what comes after it", got)
	}
}

func FuzzAzure(f *testing.F) {
	f.Add(readTestdata(f, "azure.csv"))
	f.Add([]byte(azureHead + "\n2024-05-12 00:00:00.003935+00:00,10,1\n"))
	f.Add([]byte("\xef\xbb\xbf" + azureHead + "\n"))
	f.Add([]byte("\x1f\x8b"))
	f.Fuzz(func(t *testing.T, in []byte) { checkTrace(t, Azure(bytes.NewReader(in)), 0) })
}

func FuzzMooncake(f *testing.F) {
	f.Add(readTestdata(f, "mooncake.jsonl"))
	f.Add([]byte(mooncakeRows(3, 0, 3000)))
	f.Add([]byte(`{"timestamp":1e11,"input_length":1,"output_length":1,"hash_ids":[18446744073709551615]}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		checkTrace(t, Mooncake(bytes.NewReader(in), 1, MooncakeQuantum), MooncakeBlock)
	})
}

// checkTrace holds whatever bytes are read to what Arrival promises.
func checkTrace(t *testing.T, tr *Trace, block int) {
	var last time.Duration
	ended := false
	for a, err := range tr.Arrivals {
		if ended {
			t.Fatal("something after the error")
		}
		if err != nil {
			ended = true
			continue
		}
		if a.At < last || a.PromptTokens < 1 || a.OutputTokens < 1 {
			t.Fatalf("%+v after %v", a, last)
		}
		if block > 0 && len(a.Blocks) != (a.PromptTokens+block-1)/block {
			t.Fatalf("%d blocks for %d tokens", len(a.Blocks), a.PromptTokens)
		}
		last = a.At
	}
}
