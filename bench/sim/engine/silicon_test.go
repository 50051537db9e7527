package engine

import (
	"encoding/csv"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// silicon is one measured row: a closed loop of so many clients against vLLM 0.12.0.
type silicon struct {
	isl, osl, clients, tp int
	ttft, tpot            float64 // ms, means
}

func readSilicon(t *testing.T) (rows []silicon) {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", "aic_qwen3-32b_h100.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range all[1:] {
		var v [6]float64
		for i, text := range row {
			if v[i], err = strconv.ParseFloat(text, 64); err != nil {
				t.Fatal(err)
			}
		}
		rows = append(rows, silicon{int(v[0]), int(v[1]), int(v[2]), int(v[3]), v[4], v[5]})
	}
	return rows
}

// qwen32b is Qwen3-32B on tp H100s, made of the same kernel tables in the same way as the presets: 64 layers of GEMMs
// (10240,5120), (5120,8192), (51200,5120), (5120,25600) by tp, all-reduce of twice 5120 elements per token and layer,
// elementwise traffic at 2.6 TB/s. Attention terms are those of Llama-3.1-8B by layers, heads and KV heads. Overheads by
// tensor parallelism are those the fit of o0 and o1 gave.
func qwen32b(tp int) Preset {
	lin := map[int][]float64{
		2: {12.1, 12.7, 13.4, 14.5, 17.1, 27.0, 51.7, 102.5, 209.7, 418.3},
		4: {6.9, 7.4, 8.0, 8.7, 11.3, 17.2, 31.7, 61.4, 123.8, 243.0},
		8: {4.4, 4.5, 5.5, 6.2, 8.0, 12.2, 21.6, 39.8, 80.6, 155.9},
	}[tp]
	over := map[int][2]float64{2: {1.2, 35}, 4: {1.75, 41}, 8: {2.1, 39}}[tp]
	p := Preset{
		Name: fmt.Sprintf("qwen3-32b-tp%d", tp), TensorParallel: tp, MaxModelLen: 40960,
		HeadMS: .55 / float64(tp), AttentionMS: .60, DecodeUS: 11, KVTokenUS: .088 / float64(tp), PairNS: 3.16 / float64(tp),
		OverheadMS: over[0], OverheadPerSeqUS: over[1], MemoryFloorTokens: 256,
	}
	for i, m := range []int{1, 8, 64, 128, 256, 512, 1024, 2048, 4096, 8192} {
		p.Lin = append(p.Lin, Point{m, lin[i]})
	}
	p.SlopeUS = (lin[9] - lin[8]) / 4096 * 1e3
	// 79.1 GiB by .9, less weights of 65.5 GB and 3 GiB of activations; 262,144 bytes of KV per token over all.
	const gib = 1 << 30
	free := float64(tp)*(.9*79.1*gib-3*gib) - 65.5e9
	p.NumBlocks = int(free / 262144 / 16)
	return p
}

// serve is a closed loop of so many clients. They begin together and, all lengths being equal, stay together; or they
// begin evenly over the time one request takes.
func serve(t *testing.T, p Preset, s silicon, spread time.Duration) (ttft, tpot float64) {
	t.Helper()
	e := start(t, Config{Model: &p})
	sent, first := map[uint64]time.Duration{}, map[uint64]time.Duration{}
	var now time.Duration
	n, total := uint64(0), uint64(4*s.clients)
	send := func() {
		if n < total {
			submit(t, e, Request{ID: n, PromptTokens: s.isl, OutputTokens: s.osl})
			sent[n] = now
			n++
		}
	}
	begun := 0
	begin := func() {
		for begun < s.clients && now >= spread*time.Duration(begun)/time.Duration(s.clients) {
			send()
			begun++
		}
	}
	begin()
	var evs []Event
	for {
		var d time.Duration
		if d, evs = e.Step(evs[:0]); d == 0 {
			return ttft / float64(total), tpot / float64(total)
		}
		now += d
		begin()
		for _, ev := range evs {
			if ev.First {
				first[ev.ID] = now
				ttft += (now - sent[ev.ID]).Seconds() * 1e3
			}
			if ev.Finished {
				tpot += (now - first[ev.ID]).Seconds() * 1e3 / float64(s.osl-1)
				send()
			}
		}
	}
}

// TestAgainstSilicon holds the model against 38 measured closed loops of Qwen3-32B on two, four and eight H100s. o0 and o1
// were fitted to seven of these rows (1024 in, 1024 out); GEMMs, attention, memory and scheduler were not. TTFT
// depends on how the clients' requests fall together, which the rows do not tell: both extremes are shown.
func TestAgainstSilicon(t *testing.T) {
	errs := map[int][]float64{}
	tpotErr, between := 0.0, 0
	rows := readSilicon(t)
	for _, s := range rows {
		most, tpot := serve(t, qwen32b(s.tp), s, 0)
		ttft, _ := serve(t, qwen32b(s.tp), s, time.Duration((s.ttft+s.tpot*float64(s.osl))*1e6))
		if s.ttft >= .8*ttft && s.ttft <= 1.2*most {
			between++
		}
		t.Logf("TP%d %4d/%4d x %3d: TPOT %6.1f, real %6.1f: %+5.1f %%; TTFT %7.0f to %7.0f, real %7.0f", s.tp, s.isl, s.osl, s.clients,
			tpot, s.tpot, 100*(tpot/s.tpot-1), ttft, most, s.ttft)
		off := math.Abs(tpot/s.tpot - 1)
		errs[s.tp] = append(errs[s.tp], off)
		tpotErr += off / float64(len(rows))
	}
	for _, tp := range []int{2, 4, 8} {
		sum := 0.0
		for _, e := range errs[tp] {
			sum += e
		}
		t.Logf("TP%d: %d rows, mean absolute error of TPOT %.1f %%", tp, len(errs[tp]), 100*sum/float64(len(errs[tp])))
	}
	t.Logf("all: mean absolute error of TPOT %.1f %%; TTFT between that of clients apart and together, 20 %% allowed, in %d of %d",
		100*tpotErr, between, len(rows))
	if tpotErr > .10 {
		t.Errorf("mean absolute error of TPOT is %.1f %%, want within 10 %%", 100*tpotErr)
	}
}
