package trace

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
)

// maxLine bounds one line. The longest line of the traces read here, a
// conversation of 561 requests with its blocks, has 131 KiB.
const maxLine = 1 << 20

// maxTokens bounds a token count; larger ones are taken for a damaged file. The
// longest prompt published so far (agentic traces) has below 1 M tokens.
const maxTokens = 1 << 26

// Formats of trace files.
const (
	FormatAzure    = "azure"
	FormatMooncake = "mooncake"
	// FormatAccessLog is lbd's own access log.
	FormatAccessLog = "access-log"
)

// Open reads a trace file in the given format. The file is opened at once, so
// that a wrong path is known early, and again each time the trace is ranged over.
// The seed is for formats that need random numbers (see [Mooncake]).
func Open(path, format string, seed uint64) (*Trace, error) {
	read, err := reader(format, seed)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot open trace: %w", err)
	}
	f.Close()
	t := read(nil)
	return t.with(func(yield func(Arrival, error) bool) {
		f, err := os.Open(path)
		if err != nil {
			yield(Arrival{}, fmt.Errorf("cannot open trace: %w", err))
			return
		}
		defer f.Close()
		for a, err := range read(f).Arrivals {
			if err != nil {
				err = fmt.Errorf("%s: %w", path, err)
			}
			if !yield(a, err) {
				return
			}
		}
	}), nil
}

func reader(format string, seed uint64) (func(io.Reader) *Trace, error) {
	switch format {
	case FormatAzure:
		return Azure, nil
	case FormatMooncake:
		return func(r io.Reader) *Trace { return Mooncake(r, seed, MooncakeQuantum) }, nil
	case FormatAccessLog:
		return AccessLog, nil
	}
	return nil, fmt.Errorf("unknown trace format %q; want %s, %s or %s", format, FormatAzure, FormatMooncake, FormatAccessLog)
}

// line is one line of a file, without its end.
type line struct {
	number int // from 1
	text   []byte
}

// errorf makes an error that names the line.
func (l line) errorf(format string, args ...any) error {
	return fmt.Errorf("line %d: %w", l.number, fmt.Errorf(format, args...))
}

// lines yields the lines of r that are not blank; LF and CRLF end a line, the
// last one may lack its end. gzip is recognised by its first two bytes (RFC 1952
// section 2.3.1). The text of a line is valid until the next one is asked for.
func lines(r io.Reader) iter.Seq2[line, error] {
	return func(yield func(line, error) bool) {
		plain, err := gunzip(r)
		if err != nil {
			yield(line{}, err)
			return
		}
		scan := bufio.NewScanner(plain)
		scan.Buffer(make([]byte, 0, 64<<10), maxLine)
		l := line{}
		for scan.Scan() {
			l.number++
			l.text = bytes.TrimSpace(scan.Bytes())
			if len(l.text) > 0 && !yield(l, nil) {
				return
			}
		}
		l.number++
		if err := scan.Err(); errors.Is(err, bufio.ErrTooLong) {
			yield(line{}, l.errorf("longer than %d bytes", maxLine))
		} else if err != nil {
			yield(line{}, l.errorf("cannot read: %w", err))
		}
	}
}

func gunzip(r io.Reader) (io.Reader, error) {
	buffered := bufio.NewReader(r)
	magic, err := buffered.Peek(2)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("cannot read: %w", err)
	}
	if !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		return buffered, nil
	}
	z, err := gzip.NewReader(buffered)
	if err != nil {
		return nil, fmt.Errorf("damaged gzip head: %w", err)
	}
	return z, nil
}
