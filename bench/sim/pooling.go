package sim

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"math"
	"net/http"
	"time"
)

// unitVector is the deterministic embedding of a text, of length 1.
func unitVector(p *prompt, dims int) []float64 {
	s := story(hashBytes(fnvOffset, p.data))
	v, sum := make([]float64, dims), 0.0
	for i := range v {
		x := hashBytes(uint64(s), []byte{byte(i), byte(i >> 8), byte(i >> 16)})
		v[i] = float64(x>>11)/(1<<52) - 1
		sum += v[i] * v[i]
	}
	for i := range v {
		v[i] /= math.Sqrt(sum)
	}
	return v
}

// prefillOnly runs prompts through the engine for the sake of their time: a
// pooling model computes them and generates nothing, which costs what one
// token costs.
type prefillOnly struct {
	reply
	answer func(prompts int)
}

func (p *prefillOnly) open() error                     { return nil }
func (p *prefillOnly) deliver(*choice, int, int) error { return nil }
func (p *prefillOnly) finish(_ []*choice, prompts int) error {
	p.answer(prompts)
	return nil
}

// pool computes prompts and then answers.
func (r *run) pool(x *exchange, ps []prompt, prefix string, answer func(id string, prompts int)) {
	one := 1
	g := &genRequest{n: 1, limit: &one, ignoreEOS: true, prompts: ps}
	for i := range ps {
		if n := ps[i].tokens(); n > r.eng.MaxModelLen-1 {
			r.reject(x, r.badRequest("This model's maximum context length is "+itoa(r.eng.MaxModelLen)+
				" tokens. However, you requested "+itoa(n)+" tokens in the input for embedding generation. "+
				"Please reduce the length of the input.", "input_tokens", n))
			return
		}
	}
	a := r.newReply(x, g, prefix)
	r.generate(x, g, &prefillOnly{reply: a, answer: func(n int) { answer(a.id, n) }})
}

type embedding struct {
	Index     int    `json:"index"`
	Object    string `json:"object"`
	Embedding any    `json:"embedding"`
}

type listResponse struct {
	ID      string    `json:"id"`
	Object  string    `json:"object"`
	Created int64     `json:"created"`
	Model   string    `json:"model"`
	Data    any       `json:"data"`
	Usage   usageInfo `json:"usage"`
}

func (r *run) list(x *exchange, id string, prompts int, data any) {
	x.json(http.StatusOK, listResponse{
		ID: id, Object: "list", Created: time.Now().Unix(), Model: r.cfg.Model, Data: data,
		Usage: usageInfo{PromptTokens: prompts, TotalTokens: prompts},
	})
}

func (r *run) embeddings(x *exchange) {
	var ps []prompt
	format := "float"
	ok := r.inspect(x, func(v *validator) {
		if v.o.has("messages") {
			ps = []prompt{chatPrompt(v.messages("messages"), true)}
			r.strict(v, embeddingChatFieldsV064)
		} else if v.required("input") {
			ps, _ = v.prompts("input")
			r.strict(v, embeddingFieldsV064)
		}
		if f := v.text("encoding_format"); f != "" {
			format = f
		}
		if format != "float" && format != "base64" {
			v.complain("literal_error", "encoding_format", "Input should be \\'float\\' or \\'base64\\'", v.o.vals["encoding_format"])
		}
	})
	if !ok {
		return
	}
	r.pool(x, ps, "embd-", func(id string, n int) {
		data := make([]embedding, len(ps))
		for i := range ps {
			data[i] = embedding{Index: i, Object: "embedding", Embedding: encodeVector(unitVector(&ps[i], r.cfg.EmbeddingDims), format)}
		}
		r.list(x, id, n, data)
	})
}

func encodeVector(v []float64, format string) any {
	if format == "float" {
		return v
	}
	b := make([]byte, 0, 4*len(v))
	for _, f := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(f)))
	}
	return base64.StdEncoding.EncodeToString(b)
}

func (r *run) pooling(x *exchange) {
	var ps []prompt
	if !r.inspect(x, func(v *validator) {
		if v.o.has("messages") {
			ps = []prompt{chatPrompt(v.messages("messages"), true)}
		} else if v.required("input") {
			ps, _ = v.prompts("input")
		}
	}) {
		return
	}
	type pooled struct {
		Index  int       `json:"index"`
		Object string    `json:"object"`
		Data   []float64 `json:"data"`
	}
	r.pool(x, ps, "pool-", func(id string, n int) {
		data := make([]pooled, len(ps))
		for i := range ps {
			data[i] = pooled{Index: i, Object: "pooling", Data: unitVector(&ps[i], r.cfg.EmbeddingDims)}
		}
		r.list(x, id, n, data)
	})
}

func (r *run) classify(x *exchange) {
	var ps []prompt
	if !r.inspect(x, func(v *validator) {
		if v.required("input") {
			ps, _ = v.prompts("input")
		}
	}) {
		return
	}
	type class struct {
		Index      int       `json:"index"`
		Label      string    `json:"label"`
		Probs      []float64 `json:"probs"`
		NumClasses int       `json:"num_classes"`
	}
	r.pool(x, ps, "classify-", func(id string, n int) {
		data := make([]class, len(ps))
		for i := range ps {
			p := similarity(unitVector(&ps[i], 8), unitVector(&ps[0], 8))
			data[i] = class{Index: i, Label: "LABEL_0", Probs: []float64{p, 1 - p}, NumClasses: 2}
		}
		r.list(x, id, n, data)
	})
}

// similarity maps the cosine of two unit vectors to 0..1.
func similarity(a, b []float64) float64 {
	dot := 0.0
	for i := range a {
		dot += a[i] * b[i]
	}
	return math.Round((1+dot)/2*1e6) / 1e6
}

// pairs are the queries and documents of /score and /rerank; one query is
// compared with every document.
func pairs(queries, documents []string) []prompt {
	ps := make([]prompt, len(documents))
	for i, d := range documents {
		ps[i] = textPrompt(queries[min(i, len(queries)-1)] + d)
	}
	return ps
}

func (r *run) score(x *exchange) {
	var a, b []string
	if !r.inspect(x, func(v *validator) {
		keys := [2]string{"text_1", "text_2"}
		if v.o.has("queries") {
			keys = [2]string{"queries", "documents"}
		}
		if v.required(keys[0]) {
			a = v.texts(keys[0])
		}
		if v.required(keys[1]) {
			b = v.texts(keys[1])
		}
	}) {
		return
	}
	if len(a) == 0 || len(b) == 0 || len(a) > 1 && len(a) != len(b) {
		r.reject(x, r.badRequest("Input lengths must be either 1:1, 1:N or N:N", "", nil))
		return
	}
	type scored struct {
		Index  int     `json:"index"`
		Object string  `json:"object"`
		Score  float64 `json:"score"`
	}
	r.pool(x, pairs(a, b), "score-", func(id string, n int) {
		data := make([]scored, len(b))
		for i := range b {
			data[i] = scored{Index: i, Object: "score", Score: relevance(a[min(i, len(a)-1)], b[i])}
		}
		r.list(x, id, n, data)
	})
}

func relevance(a, b string) float64 {
	pa, pb := textPrompt(a), textPrompt(b)
	return similarity(unitVector(&pa, 16), unitVector(&pb, 16))
}

func (r *run) rerank(x *exchange) {
	var query string
	var docs []string
	top := 0
	if !r.inspect(x, func(v *validator) {
		if v.required("query") {
			query = v.text("query")
		}
		if v.required("documents") {
			docs = v.texts("documents")
		}
		if n := v.whole("top_n"); n != nil {
			top = *n
		}
	}) {
		return
	}
	if len(docs) == 0 {
		r.reject(x, r.badRequest("At least one document is required", "documents", nil))
		return
	}
	r.pool(x, pairs([]string{query}, docs), "rerank-", func(id string, n int) {
		x.json(http.StatusOK, rankingOf(id, r.cfg.Model, query, docs, top, n))
	})
}

type ranking struct {
	ID    string `json:"id"`
	Model string `json:"model"`
	Usage struct {
		PromptTokens int `json:"prompt_tokens"`
		TotalTokens  int `json:"total_tokens"`
	} `json:"usage"`
	Results []ranked `json:"results"`
}

type ranked struct {
	Index    int `json:"index"`
	Document struct {
		Text       string `json:"text"`
		MultiModal *int   `json:"multi_modal"`
	} `json:"document"`
	Score float64 `json:"relevance_score"`
}

func rankingOf(id, model, query string, docs []string, top, tokens int) ranking {
	res := ranking{ID: id, Model: model}
	res.Usage.PromptTokens, res.Usage.TotalTokens = tokens, tokens
	for i, d := range docs {
		one := ranked{Index: i, Score: relevance(query, d)}
		one.Document.Text = d
		at := len(res.Results)
		for at > 0 && res.Results[at-1].Score < one.Score {
			at--
		}
		res.Results = append(res.Results[:at], append([]ranked{one}, res.Results[at:]...)...)
	}
	if top > 0 && top < len(docs) {
		res.Results = res.Results[:top]
	}
	return res
}

// invocations is SageMaker's door: the body's shape says which route is meant.
func (r *run) invocations(x *exchange) {
	o, err := parseObject(x.body)
	has := func(k string) bool { return err == nil && o.has(k) }
	switch {
	case has("messages"):
		r.chat(x)
	case has("prompt"):
		r.completion(x)
	case has("query"):
		r.rerank(x)
	case has("text_1"), has("queries"):
		r.score(x)
	case has("input"):
		r.embeddings(x)
	default:
		if _, ok := r.body(x); ok {
			x.json(http.StatusBadRequest, map[string]json.RawMessage{
				"error": json.RawMessage(`"Cannot find suitable handler for request."`)})
		}
	}
}
