package relay

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// chunk frames s as vLLM's uvicorn does: one event, one chunk.
func chunk(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }

// chatEvent is a chat chunk of vLLM of 250 bytes.
func chatEvent() string {
	e := `data: {"id":"chatcmpl-7f1a2c3d4e5f60718293a4b5c6d7e8f9","object":"chat.completion.chunk","created":1731628800,` +
		`"model":"meta-llama/Llama-3.1-8B-Instruct","choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}]}`
	return e + strings.Repeat(" ", 248-len(e)) + "\n\n"
}

func completionEvent() string {
	return `data: {"id":"cmpl-7f1a2c3d4e5f60718293a4b5c6d7e8f9","object":"text_completion","created":1731628800,` +
		`"model":"meta-llama/Llama-3.1-8B-Instruct","choices":[{"index":0,"text":" token","logprobs":null,"finish_reason":null,"stop_reason":null}],"usage":null}` + "\n\n"
}

func usageEvent() string {
	return `data: {"id":"chatcmpl-7f1a2c3d4e5f60718293a4b5c6d7e8f9","object":"chat.completion.chunk","created":1731628800,` +
		`"model":"meta-llama/Llama-3.1-8B-Instruct","choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}],` +
		`"usage":{"prompt_tokens":11,"total_tokens":27,"completion_tokens":16}}` + "\n\n"
}

func roleEvent() string {
	return `data: {"id":"chatcmpl-7f1a2c3d4e5f60718293a4b5c6d7e8f9","object":"chat.completion.chunk","created":1731628800,` +
		`"model":"meta-llama/Llama-3.1-8B-Instruct","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}` + "\n\n"
}

type noGaps struct{}

func (noGaps) Observe(float64) {}

func benchStream(sniff bool) *Stream {
	s := &Stream{}
	s.Body.Reset(Chunked, 0)
	if sniff {
		s.Sniff = &Sniffer{}
		s.Sniff.Reset(true, noGaps{})
	}
	return s
}

func BenchmarkEvent(b *testing.B) {
	now := time.Now()
	for _, bb := range []struct{ name, event string }{
		{"chat", chatEvent()}, {"completion", completionEvent()}, {"continuous_usage", usageEvent()}, {"role", roleEvent()},
	} {
		for _, sniff := range []bool{false, true} {
			b.Run(fmt.Sprintf("%s/sniff=%t", bb.name, sniff), func(b *testing.B) {
				s, p := benchStream(sniff), []byte(chunk(bb.event))
				b.SetBytes(int64(len(p)))
				b.ReportAllocs()
				for b.Loop() {
					if err := s.pass(io.Discard, p, now); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkBody(b *testing.B) {
	now := time.Now()
	piece := bytes.Repeat([]byte("x"), 32<<10-16)
	for _, bb := range []struct {
		name    string
		framing Framing
		p       []byte
	}{
		{"length", Length, piece},
		{"chunks_of_32k", Chunked, []byte(chunk(string(piece)))},
		{"chunks_of_100", Chunked, bytes.Repeat([]byte(chunk(strings.Repeat("x", 100))), 300)},
	} {
		b.Run(bb.name, func(b *testing.B) {
			s := &Stream{}
			s.Body.Reset(bb.framing, 1<<60)
			b.SetBytes(int64(len(bb.p)))
			for b.Loop() {
				if err := s.pass(io.Discard, bb.p, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkHead(b *testing.B) {
	head := []byte("HTTP/1.1 200 OK\r\ndate: Fri, 15 Nov 2024 00:00:00 GMT\r\nserver: uvicorn\r\n" +
		"content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n")
	var h Head
	b.ReportAllocs()
	for b.Loop() {
		if n, err := h.Parse(head); n == 0 || err != nil {
			b.Fatal(n, err)
		}
	}
}
