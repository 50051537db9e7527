package load

import (
	"bytes"
	"encoding/json"
	"strconv"
)

// usage is OpenAI's count of tokens.
type usage struct {
	PromptTokens     int `json:"prompt_tokens"`
	CompletionTokens int `json:"completion_tokens"`
	Details          *struct {
		CachedTokens int `json:"cached_tokens"`
	} `json:"prompt_tokens_details"`
}

// chunk is what is read of a streamed event or a whole response.
type chunk struct {
	Choices []struct {
		Text  string `json:"text"` // completions
		Delta struct {
			Content          string            `json:"content"`
			ReasoningContent string            `json:"reasoning_content"`
			Reasoning        string            `json:"reasoning"`
			ToolCalls        []json.RawMessage `json:"tool_calls"`
		} `json:"delta"`
	} `json:"choices"`
	Usage  *usage          `json:"usage"`
	Error  json.RawMessage `json:"error"`
	Object string          `json:"object"`
}

// text is the output a user would see of the first choice; reasoning and tool
// calls are no part of the history a client sends back.
func (c *chunk) text() string {
	if len(c.Choices) == 0 {
		return ""
	}
	return c.Choices[0].Delta.Content + c.Choices[0].Text
}

// answer is a whole response.
type answer struct {
	chunk
	Choices []struct {
		Text    string `json:"text"` // completions
		Message struct {
			Content string `json:"content"`
		} `json:"message"`
	} `json:"choices"`
}

func (a *answer) text() string {
	if len(a.Choices) == 0 {
		return ""
	}
	return a.Choices[0].Message.Content + a.Choices[0].Text
}

// appendEscaped adds the text as it stands between the quotes of a JSON string.
func appendEscaped(dst []byte, text string) []byte {
	quoted, err := json.Marshal(text)
	if err != nil {
		panic("BUG: load: a string has no JSON: " + err.Error())
	}
	return append(dst, quoted[1:len(quoted)-1]...)
}

// hasContent tells whether the event brought output to the user. The role alone,
// an empty delta and the closing finish_reason did not.
func (c *chunk) hasContent() bool {
	for i := range c.Choices {
		d := &c.Choices[i].Delta
		if d.Content != "" || c.Choices[i].Text != "" || d.ReasoningContent != "" || d.Reasoning != "" || len(d.ToolCalls) > 0 {
			return true
		}
	}
	return false
}

// failed tells whether the event is an error. The message object of a healthy
// stream may carry "error":null.
func (c *chunk) failed() bool {
	return len(c.Error) > 0 && !bytes.Equal(c.Error, []byte("null")) || c.Object == "error"
}

// The usual shapes of a vLLM content event up to the content's first character.
// An unescaped quote cannot be inside a JSON string, so where these bytes occur
// they are the structure they look like.
var (
	chatContent       = []byte(`"choices":[{"index":0,"delta":{"content":"`)
	completionContent = []byte(`"choices":[{"index":0,"text":"`)
	usageObject       = []byte(`"usage":{`)
)

// plainContent recognises nearly every event of a stream without decoding it:
// at tens of thousands of events per second decoding would cost more CPU than
// the proxy under test. What it does not recognise is decoded. The text is still
// escaped.
func plainContent(data []byte) (text []byte, ok bool) {
	if len(data) < 2 || data[0] != '{' || data[len(data)-1] != '}' {
		return nil, false
	}
	at := bytes.Index(data, chatContent)
	skip := len(chatContent)
	if at < 0 {
		at, skip = bytes.Index(data, completionContent), len(completionContent)
	}
	if at < 0 || bytes.Contains(data, usageObject) {
		return nil, false
	}
	text = untilQuote(data[at+skip:])
	return text, len(text) > 0
}

// untilQuote is what stands before the first quote that is not escaped; nil
// without one.
func untilQuote(b []byte) []byte {
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			return b[:i]
		case '\\':
			i++
		}
	}
	return nil
}

// apiError is the code and message of an error in any of the shapes vLLM and its
// proxies use: {"error":{…}}, {"error":"…"}, the flat {"object":"error",…} of vLLM
// up to v0.10.0, and FastAPI's {"detail":…}. The code is the type where the code
// itself only repeats the HTTP status.
func apiError(body []byte) (code, message string) {
	var outer struct {
		Error  json.RawMessage `json:"error"`
		Detail json.RawMessage `json:"detail"`
	}
	if json.Unmarshal(body, &outer) != nil {
		return "", clip(body)
	}
	if json.Unmarshal(outer.Error, &message) == nil && message != "" {
		return "", message
	}
	inner := body
	if len(outer.Error) > 0 && outer.Error[0] == '{' {
		inner = outer.Error
	}
	var e struct {
		Message string          `json:"message"`
		Type    string          `json:"type"`
		Code    json.RawMessage `json:"code"`
	}
	if json.Unmarshal(inner, &e) != nil || e.Message == "" && e.Type == "" {
		return "", clip(body)
	}
	if json.Unmarshal(e.Code, &code) != nil || code == "" {
		code = e.Type
	}
	if _, err := strconv.Atoi(code); err == nil {
		code = e.Type
	}
	return code, e.Message
}

// clip keeps an answer short enough for a report.
func clip(b []byte) string {
	const most = 200
	b = bytes.TrimSpace(b)
	if len(b) > most {
		b = append(b[:most:most], "..."...)
	}
	return string(bytes.ToValidUTF8(b, []byte("?")))
}
