package openai

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
)

// textBody is a chat request of about size bytes with its model last, as OpenAI's SDK writes it, and with escapes every
// 80 characters, which is the worst for a scanner that looks for quotes.
func textBody(size int) []byte {
	const head, tail = `{"messages":[{"role":"user","content":"`, `"}],"model":"llama-8b","stream":true}`
	const unit = `It was a bright cold day in April, and the clocks were striking \"thirteen\".\n`
	text := strings.Repeat(unit, size/len(unit)+1)
	n := max(0, size-len(head)-len(tail))
	return []byte(head + strings.TrimRight(text[:n], `\`) + tail)
}

// imageBody is a chat request with an image of about size bytes in base64.
func imageBody(size int) []byte {
	return fmt.Appendf(nil, `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,%s"}}]}],"model":"llava","stream":true}`,
		base64.StdEncoding.EncodeToString(make([]byte, size*3/4)))
}

// idsBody is a completion request of n token ids.
func idsBody(n int) []byte {
	return []byte(`{"prompt":[1` + strings.Repeat(", 12873", n) + `],"model":"llama-8b"}`)
}

// messagesBody is a chat request of n short turns.
func messagesBody(n int) []byte {
	return []byte(`{"messages":[{}` + strings.Repeat(`, {"role": "user", "content": "hello there"}`, n) + `],"model":"llama-8b"}`)
}

func BenchmarkPeekJSON(b *testing.B) {
	for _, c := range []struct {
		name string
		body []byte
	}{
		{"128B", textBody(128)},
		{"1KB", textBody(1 << 10)},
		{"10KB", textBody(10 << 10)},
		{"100KB", textBody(100 << 10)},
		{"1MB", textBody(1 << 20)},
		{"1MB-base64", imageBody(1 << 20)},
		{"100KB-token-ids", idsBody(100 << 10 / 7)},
		{"100KB-short-turns", messagesBody(100 << 10 / 44)},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(c.body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := peekJSON(c.body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPeekMultipart(b *testing.B) {
	for _, size := range []int{1 << 10, 1 << 20} {
		file := make([]byte, size)
		for i := range file {
			file[i] = byte(i * 7)
		}
		body, contentType := writeForm(b, "whisper", file)
		b.Run(fmt.Sprintf("%dKB", size>>10), func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := PeekMultipart(contentType, body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkReplaceModel(b *testing.B) {
	body := textBody(10 << 10)
	p, err := peekJSON(body)
	if err != nil {
		b.Fatal(err)
	}
	dst := make([]byte, 0, 2*len(body))
	b.ReportAllocs()
	for b.Loop() {
		dst = ReplaceModel(dst[:0], body, p, "meta-llama/Llama-3.1-8B-Instruct")
	}
}

func TestNoAllocations(t *testing.T) {
	deep := []byte(`{"a":` + strings.Repeat("[", 20000) + strings.Repeat("]", 20000) + `,"model":"x"}`)
	bodies := map[string][]byte{
		"text": textBody(1 << 20), "base64": imageBody(1 << 20), "ids": idsBody(1000), "turns": messagesBody(1000), "20k nesting": deep,
		"escaped keys": []byte(`{"` + escapeAll("max_completion_tokens") + `":3,"mod\u0065l":"x"}`),
	}
	for name, body := range bodies {
		var model []byte
		var p Peek
		n := testing.AllocsPerRun(10, func() {
			if err := p.ReadJSON(body); err != nil {
				t.Fatal(name, err)
			}
			model = p.ModelBytes(body)
		})
		if n != 0 || len(model) == 0 {
			t.Errorf("%s: %v allocations, want 0 (model %q)", name, n, model)
		}
	}
	body, contentType := writeForm(t, "whisper", make([]byte, 1<<20))
	dst := make([]byte, 0, 2*len(body))
	n := testing.AllocsPerRun(10, func() {
		p, err := PeekMultipart(contentType, body)
		if err != nil || len(p.ModelBytes(body)) == 0 {
			t.Fatal(err)
		}
		dst = ReplaceModel(dst[:0], body, p, "other")
	})
	if n != 0 {
		t.Errorf("form: %v allocations, want 0", n)
	}
}

func TestEscapedModelAllocatesOnce(t *testing.T) {
	body := []byte(`{"model":"` + escapeAll("meta-llama/Llama-3.1-8B-Instruct") + `"}`)
	p, err := peekJSON(body)
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(10, func() { p.ModelBytes(body) }); n > 1 {
		t.Errorf("%v allocations, want 1", n)
	}
}
