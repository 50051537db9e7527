package openai

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
)

// oracle reads bodies as vLLM does, one JSON line per body, and compares the prompt at the range lbd gave.
const oracle = `
import base64, json, sys
for line in sys.stdin:
    q = json.loads(line)
    body = base64.b64decode(q["Body"])
    a = {}
    try:
        d = json.loads(body)
        if not isinstance(d, dict):
            a["Err"] = "not an object"
        else:
            m = d.get("model")
            a["HasModel"] = m is not None
            a["IsString"] = isinstance(m, str)
            if isinstance(m, str):
                a["Model"] = base64.b64encode(m.encode("utf-8", "surrogatepass")).decode()
            p = next((d[k] for k in ("messages", "prompt", "input") if d.get(k) is not None), None)
            lo, hi = q["Start"], q["End"]
            a["SamePrompt"] = repr(p) == repr(json.loads(body[lo:hi])) if hi else p is None
    except RecursionError:
        a["Err"] = "recursion"
    except Exception as e:
        a["Err"] = str(e) or type(e).__name__
    print(json.dumps(a), flush=True)
`

type oracleQuestion struct {
	Body       []byte
	Start, End int
}

type oracleAnswer struct {
	Err                            string
	HasModel, IsString, SamePrompt bool
	Model                          []byte
}

// lenient are the messages of what json.loads refuses and peekJSON passes on: see the package doc.
var lenient = []string{"Invalid \\escape", "Invalid \\u", "Invalid control character", "codec can't decode", "recursion",
	"Exceeds the limit"}

func TestAgainstPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 on PATH to compare with")
	}
	bodies := oracleBodies()
	for i, a := range askPython(t, python, bodies) {
		if msg := disagreement(bodies[i], a); msg != "" {
			t.Errorf("%.200q: %s (python says %+v)", bodies[i], msg, a)
		}
	}
}

// oracleBodies are all bodies of the tables and bodies made of those by cutting, dropping, doubling and swapping bytes.
func oracleBodies() [][]byte {
	var bodies [][]byte
	for _, c := range jsonCases {
		bodies = append(bodies, []byte(c.body))
	}
	for _, c := range badJSON {
		bodies = append(bodies, []byte(c.body))
	}
	for _, c := range badModel {
		bodies = append(bodies, []byte(`{"model":"a","model":`+c.model+`}`))
	}
	for _, digits := range []int{4300, 4301} {
		bodies = append(bodies, []byte(`{"model":"x","a":`+strings.Repeat("9", digits)+`}`))
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for _, c := range jsonCases {
		for range 60 {
			if len(c.body) < 1000 {
				bodies = append(bodies, mutate(rng, []byte(c.body)))
			}
		}
	}
	return bodies
}

func mutate(rng *rand.Rand, b []byte) []byte {
	const structural = "{}[]:,\"\\ \n0-.eEnN1tfu"
	b = bytes.Clone(b)
	for range 1 + rng.IntN(2) {
		i := rng.IntN(len(b))
		switch rng.IntN(4) {
		case 0:
			b = append(b[:i], b[min(i+1, len(b)):]...)
		case 1:
			b = append(b[:i+1], b[i:]...)
		case 2:
			b[i] = structural[rng.IntN(len(structural))]
		case 3:
			j := rng.IntN(len(b))
			b[i], b[j] = b[j], b[i]
		}
		if len(b) == 0 {
			return []byte("{")
		}
	}
	return b
}

func askPython(t *testing.T, python string, bodies [][]byte) []oracleAnswer {
	var in bytes.Buffer
	enc := json.NewEncoder(&in)
	for _, b := range bodies {
		p, _ := peekJSON(b)
		if err := enc.Encode(oracleQuestion{b, p.PromptStart, p.PromptEnd}); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(python, "-c", oracle)
	cmd.Stdin = &in
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("python3: %v\n%s", err, stderr.String())
	}
	answers := make([]oracleAnswer, len(bodies))
	dec := json.NewDecoder(bytes.NewReader(out))
	for i := range answers {
		if err := dec.Decode(&answers[i]); err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
	}
	return answers
}

// disagreement says in what peekJSON and json.loads differ beyond the documented differences.
func disagreement(body []byte, a oracleAnswer) string {
	p, err := peekJSON(body)
	isLenient := false
	for _, s := range lenient {
		isLenient = isLenient || strings.Contains(a.Err, s)
	}
	switch {
	case a.Err != "" && err == nil && !isLenient:
		return "accepted what python refuses"
	case a.Err != "":
		return ""
	case errors.Is(err, ErrEncoding):
		return ""
	case errors.Is(err, ErrModelNotString) && a.HasModel && !a.IsString:
		return ""
	case errors.Is(err, ErrModelText) && a.IsString && bytes.ContainsAny(a.Model, "\xed"): // a surrogate
		return ""
	case err != nil:
		return "refused what python accepts: " + err.Error()
	case p.HasModel != a.HasModel:
		return "model there or not"
	case string(p.ModelBytes(body)) != string(a.Model):
		return "model " + string(p.ModelBytes(body))
	case !a.SamePrompt:
		return "prompt " + string(body[p.PromptStart:p.PromptEnd])
	}
	return ""
}
