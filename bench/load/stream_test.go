package load

import (
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// Scripts of streams: whole events, lines as they are, a stream whose connection is lost
// before its end, and bytes that are the whole answer.
func stream(events ...string) script {
	return func(c net.Conn, _ *fakeRequest) bool {
		io.WriteString(c, streamHead)
		send(c, events...)
		endChunks(c)
		return true
	}
}

func raw(chunks ...string) script {
	return func(c net.Conn, _ *fakeRequest) bool {
		io.WriteString(c, streamHead)
		for _, chunk := range chunks {
			sendRaw(c, chunk)
		}
		endChunks(c)
		return true
	}
}

func cut(events ...string) script {
	return func(c net.Conn, _ *fakeRequest) bool {
		io.WriteString(c, streamHead)
		send(c, events...)
		return false
	}
}

func bare(bytes string) script {
	return func(c net.Conn, _ *fakeRequest) bool { io.WriteString(c, bytes); return false }
}

// whole are the events of a chat's stream.
var whole = []string{roleEvent, tokenEvent, tokenEvent, finishEvent, usageEvent(11, 2), "[DONE]"}

// streamCase is what is recorded of an answer.
type streamCase struct {
	name   string
	script script
	cause  string // Record.failure()
	events int
	tokens int
}

const none = "" // no cause

func (tt *streamCase) check(t *testing.T) {
	res, _ := run(t, tt.script, Options{Requests: every(1, 0)})
	rec := res.Records[0]
	if got := rec.failure(); got != tt.cause {
		t.Errorf("cause %q, want %q (%s)", got, tt.cause, rec.Detail)
	}
	if rec.Events != tt.events || rec.OutputTokens != tt.tokens {
		t.Errorf("%d events and %d tokens, want %d and %d", rec.Events, rec.OutputTokens, tt.events, tt.tokens)
	}
	if rec.Status == 200 && rec.Replica != "r1" && tt.cause != "bad_response" {
		t.Errorf("replica %q", rec.Replica)
	}
	if res.OK+res.Failed != 1 || rec.OK() != (res.OK == 1) {
		t.Errorf("%d ok, %d failed", res.OK, res.Failed)
	}
}

func checkStreams(t *testing.T, tests []streamCase) {
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { synctest.Test(t, tt.check) })
	}
}

// What a stream may look like on the wire and what is recorded of it.
func TestStreams(t *testing.T) {
	checkStreams(t, []streamCase{
		{"whole", stream(whole...), none, 2, 2},
		{"completions", stream(textEvent, textEvent, textEvent, usageEvent(1, 3), "[DONE]"), none, 3, 3},
		{"role only", stream(roleEvent, finishEvent, usageEvent(11, 0), "[DONE]"), none, 0, 0},
		{"no usage", stream(roleEvent, tokenEvent, "[DONE]"), none, 1, 0},
		{"usage null", stream(strings.TrimSuffix(tokenEvent, "}")+`,"usage":null}`, "[DONE]"), none, 1, 0},
		{"usage with content", stream(strings.TrimSuffix(tokenEvent, "}")+`,"usage":{"prompt_tokens":1,"completion_tokens":9}}`, "[DONE]"), none, 1, 9},
		{"spaced JSON", stream(`{"choices": [{"delta": {"content": "x"}}]}`, "[DONE]"), none, 1, 0},
		{"reasoning", stream(`{"choices":[{"index":0,"delta":{"reasoning_content":"x"}}]}`, "[DONE]"), none, 1, 0},
		{"tool call", stream(`{"choices":[{"index":0,"delta":{"content":null,"tool_calls":[{}]}}]}`, "[DONE]"), none, 1, 0},
		{"error null", stream(`{"choices":[{"delta":{"content":"x"}}],"error":null}`, "[DONE]"), none, 1, 0},
		{"comments", raw(": ping\n\n", "data: "+tokenEvent+"\n\n", ":\n\ndata: [DONE]\n\n"), none, 1, 0},
		{"CRLF", raw("data: " + tokenEvent + "\r\n\r\ndata: [DONE]\r\n\r\n"), none, 1, 0},
		{"other fields", raw("event: x\nid: 7\ndata:" + tokenEvent + "\nretry: 1\n\ndata: [DONE]\n\n"), none, 1, 0},
		{"two lines of data", raw("data: {\"choices\":[\ndata: {\"delta\":{\"content\":\"x\"}}]}\n\ndata: [DONE]\n\n"), none, 1, 0},
		{"several events in a chunk", raw("data: " + tokenEvent + "\n\ndata: " + tokenEvent + "\n\ndata: [DONE]\n\n"), none, 2, 0},
		{"event across chunks", raw("da", "ta: "+tokenEvent[:40], tokenEvent[40:]+"\n", "\ndata: [DO", "NE]\n\n"), none, 1, 0},
	})
}

// A stream that is cut, says that it failed or makes no sense is no answer.
func TestBrokenStreams(t *testing.T) {
	checkStreams(t, []streamCase{
		{"lost [DONE]", stream(roleEvent, tokenEvent, usageEvent(11, 1)), "truncated", 1, 1},
		{"cut within an event", raw("data: " + tokenEvent + "\n\ndata: " + tokenEvent[:30]), "truncated", 1, 0},
		{"[DONE] without its blank line", raw("data: " + tokenEvent + "\n\ndata: [DONE]\n"), "truncated", 1, 0},
		{"connection lost", cut(roleEvent, tokenEvent), "truncated", 1, 0},
		{"connection lost after [DONE]", cut(whole...), "truncated", 2, 2},
		{"empty stream", stream(), "truncated", 0, 0},
		{"error event", stream(roleEvent, tokenEvent, `{"error":{"message":"died","type":"InternalServerError","param":null,"code":500}}`, "[DONE]"), "stream_error InternalServerError", 1, 0},
		{"flat error event", stream(`{"object":"error","message":"died","type":"X","code":500}`, "[DONE]"), "stream_error X", 0, 0},
		{"no JSON", stream(tokenEvent, "oops"), "bad_sse", 1, 0},
		{"JSON cut off", stream(tokenEvent, tokenEvent[:len(tokenEvent)-1]), "bad_sse", 1, 0},
		{"wrong content type", bare(plainAnswer(200, "application/json", `{"choices":[]}`)), "bad_sse", 0, 0},
		{"endless event", raw("data: " + strings.Repeat("x", maxEvent+10)), "bad_sse", 0, 0},
	})
}

// What comes in place of a stream, and in front of one.
func TestAnswersWithoutAStream(t *testing.T) {
	checkStreams(t, []streamCase{
		{"closed before the head", func(net.Conn, *fakeRequest) bool { return false }, "reset", 0, 0},
		{"closed within the head", bare("HTTP/1.1 200 OK\r\ncontent-ty"), "reset", 0, 0},
		{"no HTTP", bare("hello\r\n\r\n"), "bad_response", 0, 0},
		{"interim response", func(c net.Conn, q *fakeRequest) bool {
			io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
			return stream(whole...)(c, q)
		}, none, 2, 2},
		{"429", bare(plainAnswer(429, "application/json", `{"error":{"message":"full","type":"overloaded_error","param":null,"code":"overloaded"}}`)), "status_429 overloaded", 0, 0},
		{"503 with an empty body", bare(plainAnswer(503, "text/plain", "")), "status_503", 0, 0},
		{"v0.6.4's flat 404", bare(plainAnswer(404, "application/json", `{"object":"error","message":"The model x does not exist.","type":"NotFoundError","param":null,"code":404}`)), "status_404 NotFoundError", 0, 0},
		{"401", bare(plainAnswer(401, "application/json", `{"error":"Unauthorized"}`)), "status_401", 0, 0},
		{"502 of HTML", bare(plainAnswer(502, "text/html", `<html>bad gateway`)), "status_502", 0, 0},
	})
}

// Each time of a record, in virtual time: 300 ms of waiting, the first token,
// then one each 20 ms, then 5 ms to the end.
func TestRecordedTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := func(c net.Conn, q *fakeRequest) bool {
			time.Sleep(100 * time.Millisecond)
			io.WriteString(c, streamHead)
			send(c, roleEvent)
			time.Sleep(200 * time.Millisecond)
			send(c, tokenEvent)
			for range 3 {
				time.Sleep(20 * time.Millisecond)
				send(c, tokenEvent)
			}
			time.Sleep(5 * time.Millisecond)
			// Two tokens shared an event: usage says 5, there were 4 events.
			send(c, usageEvent(9, 5), "[DONE]")
			endChunks(c)
			return true
		}
		res, _ := run(t, s, Options{Requests: one(Request{At: time.Second, Model: "M", PromptTokens: 8, OutputTokens: 4, Stream: true})})
		ms := time.Millisecond
		want := Record{
			Model: "M", Stream: true, Replica: "r1", Status: 200,
			Scheduled: 1000 * ms, Dispatched: 1000 * ms, Sent: 1000 * ms,
			FirstContent: 1300 * ms, LastContent: 1360 * ms, End: 1365 * ms,
			AskedPrompt: 8, AskedOutput: 4, Events: 4, PromptTokens: 9, OutputTokens: 5,
		}
		if diff := cmp.Diff(want, res.Records[0]); diff != "" {
			t.Error(diff)
		}
		if got := res.Records[0].TPOT(); got != 15*ms {
			t.Errorf("TPOT %v, want 15ms", got)
		}
		if res.WrongLength != 1 || len(res.Warnings) != 1 {
			t.Errorf("%d of wrong length, warnings %q; want 1 and one", res.WrongLength, res.Warnings)
		}
		if res.ITL.Count != 3 || res.ITL.Mean != 20 {
			t.Errorf("ITL %+v, want 3 gaps of 20 ms", res.ITL)
		}
	})
}

func TestNonStreaming(t *testing.T) {
	const body = `{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"hi"}}],` +
		`"usage":{"prompt_tokens":8,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":5}}}`
	tests := []struct {
		name, answer, cause string
		tokens              int
	}{
		{"whole", plainAnswer(200, "application/json", body), "", 4},
		{"cut off", plainAnswer(200, "application/json", body)[:150], "truncated", 0},
		{"no JSON", plainAnswer(200, "application/json", "hi"), "bad_response", 0},
		{"no choices", plainAnswer(200, "application/json", `{"choices":[]}`), "bad_response", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := func(c net.Conn, q *fakeRequest) bool {
					if q.body.Stream || strings.Contains(string(q.raw), "stream") {
						t.Errorf("body asks for a stream: %s", q.raw)
					}
					time.Sleep(time.Second)
					io.WriteString(c, tt.answer)
					return false
				}
				res, _ := run(t, s, Options{Requests: one(Request{Model: "M", PromptTokens: 8, OutputTokens: 4})})
				rec := res.Records[0]
				if rec.failure() != tt.cause || rec.OutputTokens != tt.tokens {
					t.Errorf("cause %q and %d tokens, want %q and %d (%s)", rec.failure(), rec.OutputTokens, tt.cause, tt.tokens, rec.Detail)
				}
				if res.TTFT.Count != 0 || res.TPOT.Count != 0 {
					t.Errorf("TTFT %+v and TPOT %+v of a request that has none", res.TTFT, res.TPOT)
				}
				if rec.OK() && (rec.CachedTokens != 5 || res.E2E.P50 != 1000) {
					t.Errorf("%d cached tokens, E2E %v; want 5 and 1000", rec.CachedTokens, res.E2E.P50)
				}
			})
		})
	}
}
