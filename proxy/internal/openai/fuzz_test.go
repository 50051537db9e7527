package openai

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime/multipart"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzPeekJSON compares peekJSON with encoding/json, which takes map keys as they are and lets the last of several win.
// The documented differences: encoding/json checks the inside of strings, knows no NaN and Infinity, nests up to 10,000.
func FuzzPeekJSON(f *testing.F) {
	for _, c := range jsonCases {
		if len(c.body) < 1000 {
			f.Add([]byte(c.body))
		}
	}
	for _, c := range badJSON {
		if len(c.body) < 1000 {
			f.Add([]byte(c.body))
		}
	}
	for _, c := range badModel {
		f.Add([]byte(`{"model":` + c.model + `}`))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := peekJSON(body)
		checkRanges(t, p, body)
		var members map[string]json.RawMessage
		stdErr := json.Unmarshal(body, &members)
		switch {
		case stdErr != nil && err == nil:
			if !strings.Contains(stdErr.Error(), " in string") && !strings.Contains(stdErr.Error(), "hexadecimal") &&
				!strings.Contains(stdErr.Error(), "max depth") && !bytes.Contains(body, []byte("NaN")) && !bytes.Contains(body, []byte("Infinity")) {
				t.Fatalf("accepted what encoding/json refuses: %v", stdErr)
			}
		case stdErr == nil && members != nil:
			checkModel(t, p, err, body, members)
		}
		if err == nil {
			checkReplaced(t, p, body)
		}
	})
}

func checkRanges(t *testing.T, p Peek, body []byte) {
	if p.ModelStart < 0 || p.ModelStart > p.ModelEnd || p.ModelEnd > len(body) || p.HasModel != (p.ModelEnd > 0) {
		t.Fatalf("model out of range: %+v", p)
	}
	if p.PromptStart < 0 || p.PromptStart > p.PromptEnd || p.PromptEnd > len(body) || p.MaxTokens < -1 {
		t.Fatalf("prompt or limit out of range: %+v", p)
	}
	if name := p.ModelBytes(body); !utf8.Valid(name) {
		t.Fatalf("model %q is not UTF-8", name)
	}
}

// checkModel compares with what encoding/json reads of a valid object.
func checkModel(t *testing.T, p Peek, err error, body []byte, members map[string]json.RawMessage) {
	raw, has := members["model"]
	has = has && string(raw) != "null"
	var want string
	isString := json.Unmarshal(raw, &want) == nil && bytes.HasPrefix(raw, []byte(`"`))
	switch {
	case errors.Is(err, ErrModelText):
		if !strings.ContainsRune(want, utf8.RuneError) { // what encoding/json makes of bad text
			t.Fatalf("%v, encoding/json reads %q", err, want)
		}
	case errors.Is(err, ErrModelNotString):
		if !has || isString {
			t.Fatalf("%v, encoding/json reads %q", err, want)
		}
	case err != nil:
		t.Fatalf("refused what encoding/json accepts: %v", err)
	case p.HasModel != has || string(p.ModelBytes(body)) != want:
		t.Fatalf("got model %q %v, encoding/json reads %q %v", p.ModelBytes(body), p.HasModel, want, has)
	}
}

// checkReplaced replaces the model, and reads the result again.
func checkReplaced(t *testing.T, p Peek, body []byte) {
	const name = "a\"\\/\u2028b"
	replaced := ReplaceModel(nil, body, p, name)
	q, err := peekJSON(replaced)
	if err != nil {
		t.Fatalf("replaced: %v in %q", err, replaced)
	}
	if p.HasModel && string(q.ModelBytes(replaced)) != name {
		t.Fatalf("replaced model reads %q", q.ModelBytes(replaced))
	}
	if q.Duplicate != p.Duplicate || q.Stream != p.Stream || q.MaxTokens != p.MaxTokens ||
		!bytes.Equal(replaced[q.PromptStart:q.PromptEnd], body[p.PromptStart:p.PromptEnd]) {
		t.Fatalf("replacing the model changed more: %+v, was %+v", q, p)
	}
}

// FuzzPeekMultipart never panics, keeps its ranges, and agrees with mime/multipart about strict forms.
func FuzzPeekMultipart(f *testing.F) {
	const contentType = "multipart/form-data; boundary=b"
	for _, body := range []string{
		upload + field("model", "whisper") + field("stream", "true") + "--b--\r\n",
		field("model", "a") + field("model", "b") + "--b--",
		field("model", "a") + "--b\r\nContent-Disposition: attachment; name=\"model\"\r\n\r\nb\r\n--b--",
		"\r\n--b\r\nContent-Disposition: form-data; name=\"mo\\\"del\"; filename*=utf-8''x\r\n\r\n\r\n--b--",
		"--b \r\n", "--b\r\n\r\n", "", "--b--",
	} {
		f.Add(contentType, []byte(body))
		f.Add(`multipart/form-data; charset=utf-8; boundary="b"`, []byte(body))
	}
	f.Fuzz(func(t *testing.T, contentType string, body []byte) {
		p, err := PeekMultipart([]byte(contentType), body)
		checkRanges(t, p, body)
		checkForm(t, p, err, contentType, body)
	})
}

// What a form must look like for mime/multipart's reading of it to bind PeekMultipart: RFC 7578 as clients write it. Beyond
// that each is lax in its own way: mime/multipart takes padding, preambles and encodings that are refused or left alone
// here, and refuses header names, parameters and long headers that are taken here.
var (
	strictType = regexp.MustCompile(`^multipart/form-data; boundary=([0-9A-Za-z_-]{1,70})$`)
	strictPart = regexp.MustCompile(`(?s)^\r\n(?:Content-Type: [a-z/-]+\r\n)?Content-Disposition: form-data; name="([ !#$&-\[\]-~]*)"` +
		`(; filename="[ !#$&-\[\]-~]*")?\r\n(?:Content-Type: [a-z/-]+\r\n)?\r\n(.*)$`)
)

// strictForm says whether a body is such a form.
func strictForm(contentType string, body []byte) (boundary string, ok bool) {
	m := strictType.FindStringSubmatch(contentType)
	if m == nil {
		return "", false
	}
	parts := strings.Split("\r\n"+string(body), "\r\n--"+m[1])
	last := len(parts) - 1
	if last < 1 || parts[0] != "" || parts[last] != "--" && parts[last] != "--\r\n" {
		return "", false
	}
	for _, p := range parts[1:last] {
		if !strictPart.MatchString(p) {
			return "", false
		}
	}
	return m[1], true
}

func TestStrictForm(t *testing.T) {
	const contentType, part = "multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm"
	for body, want := range map[string]bool{
		part + "\r\n--b--\r\n": true, part + "\r\n" + part + "\r\n--b--": true, "--b--": true, upload + "--b--\r\n": false,
		"": false, part: false, "\r\n" + part + "\r\n--b--": false, part + "\r\n--b \r\n--b--": false, part + "\r\n--b--x": false,
		part + "\r\n--bc\r\n--b--": false, "--b\r\nX: y\r\n" + part[5:] + "\r\n--b--": false, "--b\n" + part[5:] + "\r\n--b--": false,
	} {
		if _, got := strictForm(contentType, []byte(body)); got != want {
			t.Errorf("%q: %v, want %v", body, got, want)
		}
		_, err := PeekMultipart([]byte(contentType), []byte(body))
		if want && err != nil {
			t.Errorf("%q: %v", body, err)
		}
	}
}

// checkForm compares with mime/multipart where that is binding.
func checkForm(t *testing.T, p Peek, err error, contentType string, body []byte) {
	boundary, ok := strictForm(contentType, body)
	if !ok {
		return
	}
	var model *multipart.Part
	var content []byte
	r := multipart.NewReader(bytes.NewReader(body), boundary)
	for {
		part, readErr := r.NextRawPart()
		if readErr == io.EOF {
			break
		}
		if readErr != nil {
			t.Fatalf("mime/multipart refuses %q: %v", body, readErr)
		}
		b, readErr := io.ReadAll(part)
		if readErr != nil {
			t.Fatalf("mime/multipart refuses %q: %v", body, readErr)
		}
		if part.FormName() == "model" {
			model, content = part, b
		}
	}
	switch {
	case model == nil:
		if err != nil || p.HasModel {
			t.Fatalf("%q: model %v, %v; mime/multipart reads none", body, p.HasModel, err)
		}
	case strings.Contains(model.Header.Get("Content-Disposition"), "; filename="):
		if !errors.Is(err, ErrModelNotString) {
			t.Fatalf("%q: %v for a model that is a file", body, err)
		}
	case !plainText(content):
		if !errors.Is(err, ErrModelText) {
			t.Fatalf("%q: %v for model %q", body, err, content)
		}
	case err != nil || string(p.ModelBytes(body)) != string(content):
		t.Fatalf("%q: got model %q, %v; mime/multipart reads %q", body, p.ModelBytes(body), err, content)
	}
}

// FuzzWrittenForm reads back what mime/multipart writes.
func FuzzWrittenForm(f *testing.F) {
	f.Add("whisper", []byte("RIFF\r\n--"))
	f.Fuzz(func(t *testing.T, model string, file []byte) {
		body, contentType := writeForm(t, model, file)
		p, err := PeekMultipart(contentType, body)
		if plainText([]byte(model)) {
			if err != nil || string(p.ModelBytes(body)) != model {
				t.Fatalf("got %q %v, want %q", p.ModelBytes(body), err, model)
			}
		} else if !errors.Is(err, ErrModelText) {
			t.Fatalf("got %v for model %q", err, model)
		}
	})
}
