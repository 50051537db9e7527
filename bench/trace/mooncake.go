package trace

import (
	"container/heap"
	"encoding/json"
	"io"
	"math/rand/v2"
	"time"
)

// MooncakeBlock is the number of tokens of one entry of hash_ids
// (kvcache-ai/Mooncake, FAST25-release/traces).
const MooncakeBlock = 512

// MooncakeQuantum is the grid of the time stamps in the published conversation
// trace: 1,180 distinct values in 59 minutes, about ten requests at each.
const MooncakeQuantum = 3 * time.Second

// maxMooncakeMillis is three years; larger stamps are taken for a damaged file.
const maxMooncakeMillis = 1e11

// Mooncake reads a trace of the Mooncake project, plain or gzip.
//
// Replayed as they are, the stamps show every strategy false bursts of ten
// simultaneous requests. So each arrival is delayed by a uniform random time
// below quantum, drawn in file order from the seed, and the order restored.
// A quantum of 0 keeps the stamps of the file.
func Mooncake(r io.Reader, seed uint64, quantum time.Duration) *Trace {
	return &Trace{BlockTokens: MooncakeBlock, Arrivals: func(yield func(Arrival, error) bool) {
		m := mooncake{jitter: rand.New(rand.NewPCG(seed, streamJitter)), quantum: quantum}
		for l, err := range lines(r) {
			if err == nil {
				err = m.read(l)
			}
			if err != nil {
				yield(Arrival{}, err)
				return
			}
			// Nothing still unread can fall before the newest stamp.
			if !m.flush(m.last, yield) {
				return
			}
		}
		m.flush(1<<63-1, yield)
	}}
}

// mooncake holds the arrivals of the last quantum until their order is certain.
type mooncake struct {
	jitter  *rand.Rand
	quantum time.Duration
	last    time.Duration // newest stamp in the file
	held    byTime
}

// flush yields what is due up to and including the given time.
func (m *mooncake) flush(until time.Duration, yield func(Arrival, error) bool) bool {
	for len(m.held) > 0 && m.held[0].At <= until {
		if !yield(heap.Pop(&m.held).(heldArrival).Arrival, nil) {
			return false
		}
	}
	return true
}

func (m *mooncake) read(l line) error {
	a, err := parseMooncake(l)
	if err != nil {
		return err
	}
	if a.At < m.last {
		return l.errorf("timestamp %d is before that of an earlier row; want time order", a.At.Milliseconds())
	}
	m.last = a.At
	if m.quantum > 0 {
		a.At += time.Duration(m.jitter.Int64N(int64(m.quantum)))
	}
	heap.Push(&m.held, heldArrival{Arrival: a, line: l.number})
	return nil
}

func parseMooncake(l line) (Arrival, error) {
	var row struct {
		Timestamp    *float64 `json:"timestamp"` // milliseconds
		InputLength  int      `json:"input_length"`
		OutputLength int      `json:"output_length"`
		HashIDs      []uint64 `json:"hash_ids"`
	}
	if err := json.Unmarshal(l.text, &row); err != nil {
		return Arrival{}, l.errorf("want one JSON object per line: %w", err)
	}
	if row.Timestamp == nil || *row.Timestamp < 0 || *row.Timestamp > maxMooncakeMillis {
		return Arrival{}, l.errorf("timestamp missing or out of range; want milliseconds, 0 to %g", float64(maxMooncakeMillis))
	}
	if err := checkTokens(l, "input_length", row.InputLength); err != nil {
		return Arrival{}, err
	}
	if err := checkTokens(l, "output_length", row.OutputLength); err != nil {
		return Arrival{}, err
	}
	if want := (row.InputLength + MooncakeBlock - 1) / MooncakeBlock; len(row.HashIDs) != want {
		return Arrival{}, l.errorf("%d hash_ids for %d tokens; want %d, one for each %d tokens",
			len(row.HashIDs), row.InputLength, want, MooncakeBlock)
	}
	return Arrival{
		At:           time.Duration(*row.Timestamp * float64(time.Millisecond)),
		PromptTokens: row.InputLength,
		OutputTokens: row.OutputLength,
		Blocks:       row.HashIDs,
	}, nil
}

type heldArrival struct {
	Arrival
	line int
}

// byTime is a heap; the file's order breaks ties, so the result is one sequence
// and not any of several.
type byTime []heldArrival

func (h byTime) Len() int { return len(h) }
func (h byTime) Less(i, j int) bool {
	return h[i].At < h[j].At || h[i].At == h[j].At && h[i].line < h[j].line
}
func (h byTime) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *byTime) Push(x any)   { *h = append(*h, x.(heldArrival)) }
func (h *byTime) Pop() any {
	old := *h
	x := old[len(old)-1]
	old[len(old)-1] = heldArrival{}
	*h = old[:len(old)-1]
	return x
}
