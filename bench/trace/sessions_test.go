package trace

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const sessionLine = `{"id":"a","block_size":64,"requests":[` +
	`{"type":"n","in":200,"out":5,"think_time":0,"cp":0,"add":[[1,3]]},` +
	`{"type":"subagent","requests":[{"type":"n","in":130,"out":2,"think_time":1,"cp":0,"add":[[50,2]]}]},` +
	`{"type":"s","in":330,"out":6,"think_time":2.5,"cp":2,"add":[[9,2],[20,1]]}]}`

func TestSessions(t *testing.T) {
	all, err := Sessions(strings.NewReader(sessionLine + "\n" + sessionLine + "\n"))
	if err != nil || len(all) != 1 {
		t.Fatalf("%d sessions, %v; want one, the second is a copy", len(all), err)
	}
	s := all[0]
	if len(s.Turns) != 3 || s.Turns[2].Think != 2500*time.Millisecond {
		t.Fatalf("%+v; want three turns, the sub-agent's in its place", s)
	}
	c := s.Blocks(7)
	const salt = 7 << 32
	for _, want := range [][]uint64{
		{salt | 1, salt | 2, salt | 3}, {salt | 50, salt | 51}, {salt | 1, salt | 2, salt | 9, salt | 10, salt | 20},
	} {
		if diff := cmp.Diff(want, c.Next()); diff != "" {
			t.Errorf("blocks: %s", diff)
		}
	}
	if n := s.MaxTokens(300); n != 1 || len(s.Turns) != 2 {
		t.Errorf("%d dropped, %d left; want the session to end before its turn of 336 tokens", n, len(s.Turns))
	}
}

func TestSessionsRefused(t *testing.T) {
	for name, text := range map[string]string{
		"no JSON": "{", "block size": `{"block_size":16}`,
		"cp":     `{"block_size":64,"requests":[{"in":64,"out":1,"cp":1,"add":[]}]}`,
		"count":  `{"block_size":64,"requests":[{"in":640,"out":1,"cp":0,"add":[[1,3]]}]}`,
		"run":    `{"block_size":64,"requests":[{"in":64,"out":1,"cp":0,"add":[[1,-1],[1,2]]}]}`,
		"tokens": `{"block_size":64,"requests":[{"in":0,"out":1,"cp":0,"add":[]}]}`,
		"think":  `{"block_size":64,"requests":[{"in":64,"out":1,"think_time":-1,"cp":0,"add":[[1,1]]}]}`,
	} {
		if _, err := Sessions(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("%s: error %v, want one that names the line", name, err)
		}
	}
}

func FuzzSessions(f *testing.F) {
	f.Add(sessionLine)
	f.Fuzz(func(t *testing.T, text string) {
		all, err := Sessions(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, s := range all {
			c := s.Blocks(1)
			for _, turn := range s.Turns {
				if n := len(c.Next()); n != turn.PromptTokens/SessionBlock {
					t.Fatalf("%d blocks for %d tokens", n, turn.PromptTokens)
				}
			}
		}
	})
}

const accessText = `{"level":"info","message":"listening"}
{"level":"info","method":"POST","path":"/v1/chat/completions","status":200,"duration_ms":2000,"model":"m","prompt_tokens":256,"completion_tokens":9,"prompt_bytes":1024,"prefix":["a1","b2","c3"],"time":"2026-11-21T10:00:05Z","message":"request"}
{"status":429,"duration_ms":1,"time":"2026-11-21T10:00:05Z","message":"request"}
{"status":200,"duration_ms":1500.5,"prompt_bytes":400,"content_events":7,"time":"2026-11-21T10:00:04.5Z","message":"request"}
`

func TestAccessLog(t *testing.T) {
	all, err := AccessLog(strings.NewReader(accessText)).Collect()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 {
		t.Fatalf("%d arrivals, want 2", len(all))
	}
	if a := all[0]; a.At != 0 || a.PromptTokens != 100 || a.OutputTokens != 7 || a.Blocks != nil {
		t.Errorf("first is %+v, want the one that began at 10:00:02.9995, 400 bytes long", a)
	}
	a := all[1]
	if a.At != 500*time.Microsecond || a.Model != "m" || a.PromptTokens != 256 || len(a.Blocks) != 12 {
		t.Errorf("second is %+v, want 12 blocks: three of 256 bytes, four times 16 tokens each", a)
	}
	longer := strings.Replace(accessText, `"c3"]`, `"d4","e5"]`, 1)
	other, err := AccessLog(strings.NewReader(longer)).Collect()
	if err != nil {
		t.Fatal(err)
	}
	if b := other[1].Blocks; !cmp.Equal(a.Blocks[:8], b[:8]) || a.Blocks[8] == b[8] || len(b) != 16 {
		t.Errorf("prompts that share 512 of 1024 bytes have blocks %x and %x", a.Blocks, b)
	}
	if _, err := AccessLog(strings.NewReader(`{"message":"listening"}`)).Collect(); err == nil {
		t.Error("a log without requests is accepted")
	}
}

func FuzzAccessLog(f *testing.F) {
	f.Add(accessText)
	f.Fuzz(func(t *testing.T, text string) {
		last := time.Duration(0)
		for a, err := range AccessLog(strings.NewReader(text)).Arrivals {
			if err != nil {
				return
			}
			if a.At < last || a.PromptTokens < 1 || len(a.Blocks) > a.PromptTokens/AccessBlock {
				t.Fatalf("%+v after %v", a, last)
			}
			last = a.At
		}
	})
}
