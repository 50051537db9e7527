package faults

import (
	"testing"
	"time"
)

// Only a read at a replica that did not serve the model then is no execution.
func TestExecuted(t *testing.T) {
	began := time.Now()
	at := func(s int) time.Time { return began.Add(time.Duration(s) * time.Second) }
	stays, turns, full := &raw{}, &raw{}, &raw{}
	tr := &trial{homes: map[server][]home{
		stays: {{model: llama}},
		turns: {{model: qwen}, {model: llama, from: at(10)}},
		full:  {{model: llama}},
	}}
	tr.journal.refused = map[refusal]bool{{full, at(1)}: true}
	for _, c := range []struct {
		name  string
		reads []read
		want  int
	}{
		{"never", nil, 0},
		{"once", []read{{stays, llama, at(1)}}, 1},
		{"twice", []read{{stays, llama, at(1)}, {stays, llama, at(2)}}, 2},
		{"refused before the restart, then run", []read{{turns, llama, at(9)}, {stays, llama, at(9)}}, 1},
		{"refused after the restart", []read{{turns, qwen, at(12)}}, 0},
		{"run after the restart, and again", []read{{turns, llama, at(12)}, {stays, llama, at(13)}}, 2},
		{"run before the restart, and refused by another", []read{{turns, qwen, at(9)}, {stays, qwen, at(9)}}, 1},
		{"refused by one that is full, then run", []read{{full, llama, at(1)}, {stays, llama, at(1)}}, 1},
		{"run by one that was full before", []read{{full, llama, at(2)}, {stays, llama, at(2)}}, 2},
		{"a server that has no home", []read{{&raw{}, "", at(10)}}, 1},
	} {
		tr.journal.reads = map[string][]read{"id": c.reads}
		if n := tr.executed("id"); n != c.want {
			t.Errorf("%s: executed %d; want %d", c.name, n, c.want)
		}
	}
}
