package trace

import (
	"bytes"
	"io"
	"strconv"
	"time"
)

// azureHead is the first line of the 2023 and 2024 files of
// github.com/Azure/AzurePublicDataset, data/AzureLLMInferenceTrace_*.csv.
const azureHead = "TIMESTAMP,ContextTokens,GeneratedTokens"

// Azure reads a trace of the Azure LLM inference data sets, plain or gzip. They
// carry no prefix information: BlockTokens is 0. Times count from the first row.
func Azure(r io.Reader) *Trace {
	return &Trace{Arrivals: func(yield func(Arrival, error) bool) {
		p := azureParser{}
		for l, err := range lines(r) {
			if err != nil {
				yield(Arrival{}, err)
				return
			}
			a, ok, err := p.parse(l)
			if err != nil {
				yield(Arrival{}, err)
				return
			}
			if ok && !yield(a, nil) {
				return
			}
		}
		if !p.head {
			yield(Arrival{}, line{number: 1}.errorf("empty file; want the header %q", azureHead))
		}
	}}
}

type azureParser struct {
	head  bool
	first time.Time
	last  time.Duration
}

// parse reads one line; ok is false for the header.
func (p *azureParser) parse(l line) (a Arrival, ok bool, err error) {
	if !p.head {
		p.head = true
		// Files saved by Windows tools start with a byte order mark.
		if got := bytes.TrimPrefix(l.text, []byte("\ufeff")); string(got) != azureHead {
			return a, false, l.errorf("header %q; want %q", got, azureHead)
		}
		return a, false, nil
	}
	fields := bytes.Split(l.text, []byte(","))
	if len(fields) != 3 {
		return a, false, l.errorf("%d fields in %q; want 3", len(fields), l.text)
	}
	if a.At, err = p.at(l, string(fields[0])); err != nil {
		return a, false, err
	}
	if a.PromptTokens, err = tokens(l, "ContextTokens", fields[1]); err != nil {
		return a, false, err
	}
	if a.OutputTokens, err = tokens(l, "GeneratedTokens", fields[2]); err != nil {
		return a, false, err
	}
	return a, true, nil
}

// at parses a time stamp. The 2023 files have 7 fractional digits and no zone,
// the 2024 files 6 digits and +00:00; Parse takes any fraction after seconds.
func (p *azureParser) at(l line, text string) (time.Duration, error) {
	t, err := time.Parse("2006-01-02 15:04:05", text)
	if err != nil {
		t, err = time.Parse("2006-01-02 15:04:05Z07:00", text)
	}
	if err != nil {
		return 0, l.errorf("TIMESTAMP %q; want one like 2023-11-16 18:15:46.6805900", text)
	}
	if p.first.IsZero() {
		p.first = t
	}
	at := t.Sub(p.first)
	if at < p.last {
		return 0, l.errorf("TIMESTAMP %q is before that of an earlier row; want time order", text)
	}
	p.last = at
	return at, nil
}

func tokens(l line, name string, text []byte) (int, error) {
	n, err := strconv.Atoi(string(text))
	if err != nil {
		return 0, l.errorf("%s %q; want a whole number", name, text)
	}
	return n, checkTokens(l, name, n)
}

func checkTokens(l line, name string, n int) error {
	if n < 1 || n > maxTokens {
		return l.errorf("%s %d; want 1 to %d", name, n, maxTokens)
	}
	return nil
}
