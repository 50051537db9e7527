package load

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// conversations are n conversations of three turns, gap apart.
func conversations(n int, gap time.Duration) []Request {
	var all []Request
	for i := range n {
		all = append(all, Request{At: time.Duration(i) * gap, Model: "M", Class: "talk", PromptTokens: 8, OutputTokens: 4, Stream: true,
			Turns: []Turn{{Think: 5 * time.Second, PromptTokens: 3, OutputTokens: 2}, {Think: time.Second, PromptTokens: 2, OutputTokens: 1}}})
	}
	return all
}

// Turns follow the answer before them by their think time, in both loops.
func TestTurnsFollowTheAnswer(t *testing.T) {
	for _, concurrency := range []int{0, 2} {
		t.Run(fmt.Sprint(concurrency), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				res, _ := run(t, answerAfter(time.Second, 0), Options{Requests: slices.Values(conversations(2, 0)), Concurrency: concurrency})
				var got []string
				for _, rec := range res.Records {
					got = append(got, fmt.Sprintf("%d.%d %v-%v %d>%d %s", rec.Index, rec.Turn, rec.Scheduled, rec.End, rec.AskedPrompt, rec.AskedOutput, rec.Class))
				}
				one := []string{"%d.0 0s-1s 8>4 talk", "%d.1 6s-7s 15>2 talk", "%d.2 8s-9s 19>1 talk"}
				var want []string
				for i := range 2 {
					for _, line := range one {
						want = append(want, fmt.Sprintf(line, i))
					}
				}
				if diff := cmp.Diff(want, got); diff != "" || res.Lateness.Max != 0 || res.Abandoned != 0 {
					t.Errorf("lateness %+v, %d abandoned: %s", res.Lateness, res.Abandoned, diff)
				}
			})
		})
	}
}

// The prompt of a turn is what was said and really answered, and continues the
// prompt before it byte for byte: that is what a prefix cache hits.
func TestTurnsCarryTheHistory(t *testing.T) {
	for _, api := range []API{Chat, Completions} {
		t.Run(string(api), func(t *testing.T) {
			var bodies [][]byte
			s := func(c net.Conn, q *fakeRequest) bool {
				bodies = append(bodies, q.raw)
				io.WriteString(c, streamHead)
				send(c, roleEvent)
				for i := range q.body.MaxTokens {
					text, _ := json.Marshal(fmt.Sprintf(`%d" ü\`, i))
					if api == Chat {
						send(c, strings.Replace(tokenEvent, `" Hello"`, string(text), 1))
					} else {
						send(c, strings.Replace(textEvent, `" a"`, string(text), 1))
					}
				}
				send(c, usageEvent(7, q.body.MaxTokens), "[DONE]")
				endChunks(c)
				return true
			}
			q := conversations(1, 0)[0]
			q.Turns[0].Think, q.Turns[1].Think = 0, 0
			res, _ := run(t, s, Options{API: api, Requests: one(q), Concurrency: 1})
			if res.OK != 3 || len(bodies) != 3 {
				t.Fatalf("%d ok, %d bodies: %s", res.OK, len(bodies), causes(res))
			}
			var last struct {
				Prompt   string
				Messages []struct{ Role, Content string }
			}
			if err := json.Unmarshal(bodies[2], &last); err != nil {
				t.Fatalf("%s: %v", bodies[2], err)
			}
			first, second := `0" ü\1" ü\2" ü\3" ü\`, `0" ü\1" ü\`
			if api == Completions {
				before, rest, _ := strings.Cut(last.Prompt, first)
				said, after, _ := strings.Cut(rest, second)
				if len(before) != 8*wordBytes || len(said) != 3*wordBytes || len(after) != 2*wordBytes {
					t.Errorf("prompt %q", last.Prompt)
				}
				return
			}
			var shape []string
			for _, m := range last.Messages {
				shape = append(shape, fmt.Sprint(m.Role, " ", len(m.Content)))
			}
			want := []string{"user 32", fmt.Sprint("assistant ", len(first)), "user 12", fmt.Sprint("assistant ", len(second)), "user 8"}
			if diff := cmp.Diff(want, shape); diff != "" || last.Messages[1].Content != first || last.Messages[3].Content != second {
				t.Errorf("%s: %s", bodies[2], diff)
			}
			start := strings.TrimSuffix(string(bodies[1][:strings.Index(string(bodies[1]), `"max_tokens"`)]), "],")
			if !strings.HasPrefix(string(bodies[2]), start) {
				t.Errorf("body %s does not begin with %s", bodies[2], start)
			}
		})
	}
}

func TestTurnsAreAbandoned(t *testing.T) {
	refuse := func(c net.Conn, q *fakeRequest) bool {
		if strings.Contains(string(q.raw), "assistant") {
			io.WriteString(c, plainAnswer(503, "application/json", `{}`))
			return true
		}
		return answerAfter(time.Second, 0)(c, q)
	}
	for _, c := range []struct {
		name      string
		s         script
		o         Options
		abandoned int
	}{
		{"after a failure", refuse, Options{}, 1},
		{"when the time is over", answerAfter(time.Second, 0), Options{Duration: 4 * time.Second}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.o.Requests = slices.Values(conversations(1, 0))
				res, _ := run(t, c.s, c.o)
				if res.Abandoned != c.abandoned || res.OK != 1 {
					t.Errorf("%d abandoned, %d ok; want %d and 1", res.Abandoned, res.OK, c.abandoned)
				}
			})
		})
	}
}

// The starts of a ramp are spread; a run that ends early does not wait for it.
func TestRamp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		res, _ := run(t, answerAfter(time.Minute, 0), Options{Requests: every(4, 0), Concurrency: 4, Ramp: 8 * time.Second})
		for i, rec := range res.Records {
			if want := time.Duration(i) * 2 * time.Second; rec.Scheduled != want {
				t.Errorf("request %d at %v, want %v", i, rec.Scheduled, want)
			}
		}
		start := time.Now()
		run(t, answerAfter(time.Second, 0), Options{Requests: every(1, 0), Concurrency: 4, Ramp: time.Hour})
		if took := time.Since(start); took != time.Second {
			t.Errorf("one request took %v, want 1s", took)
		}
	})
}

func TestKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		res, _ := run(t, answerAfter(time.Second, 10*time.Millisecond), Options{Requests: every(3, time.Minute), KeepBytes: 1 << 20, WarmupRequests: 1})
		k := res.Records[2].Kept
		if res.Records[0].Kept != nil || k == nil {
			t.Fatal("warm-up is kept, or a measured request is not")
		}
		want := &Kept{Body: k.Body, Text: []byte(" Hello Hello Hello Hello"), Ends: []int32{6, 12, 18, 24},
			Gaps: []time.Duration{10 * time.Millisecond, 10 * time.Millisecond, 10 * time.Millisecond}}
		if diff := cmp.Diff(want, k); diff != "" || !json.Valid(k.Body) {
			t.Errorf("body %q: %s", k.Body, diff)
		}
		res, _ = run(t, answerAfter(0, 0), Options{Requests: every(9, 0), Concurrency: 1, KeepBytes: 3 * k.size()})
		kept := 0
		for _, rec := range res.Records {
			if rec.Kept != nil {
				kept++
			}
		}
		if res.NotKept == 0 || kept+res.NotKept != 9 {
			t.Errorf("%d kept, %d not; want some not, and 9 together", kept, res.NotKept)
		}
	})
}
