package openai

import (
	"bytes"
	"errors"
	"mime/multipart"
	"strings"
	"testing"
)

type formBody struct{ contentType, body []byte }

func form(body string) formBody {
	return formBody{[]byte("multipart/form-data; boundary=b"), []byte(body)}
}

// field is a part as curl and httpx write it.
func field(name, value string) string {
	return "--b\r\nContent-Disposition: form-data; name=\"" + name + "\"\r\n\r\n" + value + "\r\n"
}

const upload = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\n\r\n" +
	"RIFF\r\n\r\n--\r\n--bogus\r\n--b-\r\n--b\rContent-Disposition: form-data; name=\"model\"\r\n\r\nno\r\n"

func TestPeekMultipart(t *testing.T) {
	const end = "--b--\r\n"
	for _, c := range []struct {
		name, body, model string
		dup, stream       bool
		limit             int // 0 stands for -1
	}{
		{name: "transcription", body: upload + field("model", "whisper") + field("stream", "true") + end, model: "whisper", stream: true},
		{name: "model first", body: field("model", "whisper") + upload + end, model: "whisper"},
		{name: "no model", body: upload + end, model: "-"},
		{name: "empty form", body: end, model: "-"},
		{name: "empty model", body: field("model", "") + end, model: ""},
		{name: "last wins", body: field("model", "a") + upload + field("model", "b") + end, model: "b", dup: true},
		{name: "last wins over a file", body: strings.ReplaceAll(upload, `"file"`, `"model"`) + field("model", "b") + end, model: "b", dup: true},
		{name: "stream off", body: field("stream", "true") + field("stream", "False") + end, model: "-"},
		{name: "limits", body: field("max_tokens", "9") + field("max_completion_tokens", "8") + end, model: "-", limit: 8},
		{name: "line breaks in front", body: "\r\n\r\n" + field("model", "x") + end, model: "x"},
		{name: "epilogue", body: field("model", "x") + end + field("model", "y"), model: "x"},
		{name: "no line break behind", body: field("model", "x") + "--b--", model: "x"},
		{name: "header names in other case", body: "--b\r\ncOnTeNt-DiSpOsItIoN:form-data;NAME=model\r\n\r\nx\r\n" + end, model: "x"},
		{name: "more headers", body: "--b\r\nContent-Type: text/plain; name=\"q\"\r\nX-Empty:\r\nContent-Disposition: form-data; name=model ;; x=\"a;\\\";b\"\r\n\r\nx\r\n" + end, model: "x"},
		{name: "name in other case", body: field("Model", "x") + end, model: "-"},
		{name: "name in a filename", body: "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"; name=model;\"\r\n\r\nx\r\n" + end, model: "-"},
		{name: "name with quotes", body: field(`mo\"del`, "x") + end, model: "-"},
		{name: "json in a field", body: field("prompt", `{"model":"x"}`) + end, model: "-"},
		{name: "utf-8", body: field("model", "模型") + end, model: "模型"},
		{name: "content like a boundary", body: field("model", "--b") + end, model: "--b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := form(c.body)
			p, err := PeekMultipart(f.contentType, f.body)
			if err != nil {
				t.Fatal(err)
			}
			if got := p.ModelBytes(f.body); p.HasModel != (c.model != "-") || p.HasModel && string(got) != c.model {
				t.Errorf("model %q %v, want %q", got, p.HasModel, c.model)
			}
			if limit := max(p.MaxTokens, 0); p.Duplicate != c.dup || p.Stream != c.stream || limit != c.limit {
				t.Errorf("got %+v, want %+v", p, c)
			}
		})
	}
}

func TestBadMultipart(t *testing.T) {
	part := func(header string) string { return "--b\r\n" + header + "\r\n\r\nx\r\n--b--" }
	for _, c := range []struct{ name, body, want string }{
		{"empty", "", "body is empty"},
		{"no boundary", "hello", "body is not multipart/form-data at byte 0: want the boundary of the content type"},
		{"preamble", "hello\r\n--b--", "body is not multipart/form-data at byte 0: want the boundary of the content type"},
		{"cut in the boundary", "--", "body is cut short at byte 2: not multipart/form-data, want the boundary of the content type"},
		{"cut behind the boundary", "--b\r", "body is cut short at byte 4: not multipart/form-data, want a line break behind the boundary"},
		{"no final boundary", field("model", "x"), "body is cut short at byte 56: not multipart/form-data, want the final boundary"},
		{"boundary without end", field("model", "x") + "--b", "body is cut short at byte 59: not multipart/form-data, want a line break behind the boundary"},
		{"final boundary cut", field("model", "x") + "--b-", "body is cut short at byte 60: not multipart/form-data, want the final boundary"},
		{"padding", field("model", "x") + "--b \r\n" + field("model", "y") + "--b--", "body is not multipart/form-data at byte 59: want a line break behind the boundary"},
		{"no name", part("Content-Disposition: form-data"), "body is not multipart/form-data at byte 39: want a Content-Disposition with a name before the content"},
		{"no disposition", part("Content-Type: text/plain"), "body is not multipart/form-data at byte 33: want a Content-Disposition with a name before the content"},
		{"no headers", "--b\r\n\r\nx\r\n--b--", "body is not multipart/form-data at byte 7: want a Content-Disposition with a name before the content"},
		{"two dispositions", part("Content-Disposition: form-data; name=a\r\nContent-Disposition: form-data; name=model"), "body is not multipart/form-data at byte 65: want one Content-Disposition only"},
		{"two names", part("Content-Disposition: form-data; name=a; name=model"), `body is not multipart/form-data at byte 25: want a Content-Disposition like form-data; name="model"`},
		{"extended name", part("Content-Disposition: form-data; name=a; name*=utf-8''model"), `body is not multipart/form-data at byte 25: want a Content-Disposition like form-data; name="model"`},
		{"continued name", part("Content-Disposition: form-data; name*0=mod; name*1=el"), `body is not multipart/form-data at byte 25: want a Content-Disposition like form-data; name="model"`},
		{"backslash in the name", part(`Content-Disposition: form-data; name="mod\el"`), `body is not multipart/form-data at byte 25: want a Content-Disposition like form-data; name="model"`},
		{"name in angle brackets", part("Content-Disposition: form-data; name=<model>"), `body is not multipart/form-data at byte 25: want a Content-Disposition like form-data; name="model"`},
		{"quote in the middle", part(`Content-Disposition: form-data; x=a"b; name=model"`), `body is not multipart/form-data at byte 25: want a Content-Disposition like form-data; name="model"`},
		{"quotes not closed", part(`Content-Disposition: form-data; name="model`), `body is not multipart/form-data at byte 25: want a Content-Disposition like form-data; name="model"`},
		{"text behind the quotes", part(`Content-Disposition: form-data; name="model"s`), `body is not multipart/form-data at byte 25: want a Content-Disposition like form-data; name="model"`},
		{"space before the colon", part("Content-Disposition : form-data; name=model"), "body is not multipart/form-data at byte 24: want the name of a header and a colon"},
		{"folded header", part("Content-Disposition: form-data;\r\n name=model"), "body is not multipart/form-data at byte 38: want the name of a header and a colon"},
		{"bare line feed", part("X: a\nContent-Disposition: form-data; name=model"), "body is not multipart/form-data at byte 9: want a line break behind the header"},
		{"cut in a header", "--b\r\nContent-Dis", "body is cut short at byte 16: not multipart/form-data, want the name of a header and a colon"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := form(c.body)
			_, err := PeekMultipart(f.contentType, f.body)
			if err == nil || err.Error() != c.want {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
			if strings.Contains(c.want, "cut short") != errors.Is(err, ErrTruncated) {
				t.Errorf("ErrTruncated is %v for %q", errors.Is(err, ErrTruncated), err)
			}
		})
	}
}

func TestBadModelInForm(t *testing.T) {
	const end = "--b--"
	for _, c := range []struct {
		name, body string
		want       error
	}{
		{"file", field("model", "a") + strings.ReplaceAll(upload, `"file"`, `"model"`) + end, ErrModelNotString},
		{"extended filename", "--b\r\nContent-Disposition: form-data; name=model; filename*=utf-8''x\r\n\r\nx\r\n" + end, ErrModelNotString},
		{"bad utf-8", field("model", "\xff") + end, ErrModelText},
		{"line break", field("model", "a\r\nb") + end, ErrModelText},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := form(c.body)
			p, err := PeekMultipart(f.contentType, f.body)
			if !errors.Is(err, c.want) || p.HasModel {
				t.Errorf("got %+v %v, want %v", p, err, c.want)
			}
		})
	}
}

func TestContentType(t *testing.T) {
	for _, c := range []struct {
		contentType, boundary string
		want                  error
	}{
		{"multipart/form-data; boundary=b", "b", nil},
		{"Multipart/Form-Data;charset=UTF-8 ; BOUNDARY=\"a b;c\"", "a b;c", nil},
		{"multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW", "----WebKitFormBoundary7MA4YWxkTrZu0gW", nil},
		{"multipart/form-data; boundary==a=", "=a=", nil},
		{"multipart/mixed; boundary=b", "", ErrNotForm},
		{"application/json", "", ErrNotForm},
		{"", "", ErrNotForm},
		{"multipart/form-data", "", ErrNotForm},
		{"multipart/form-data; boundary=", "", ErrNotForm},
		{"multipart/form-data; boundary=\"\"", "", ErrNotForm},
		{"multipart/form-data; boundary=a; boundary=b", "", ErrNotForm},
		{"multipart/form-data; boundary=a; boundary*=utf-8''b", "", ErrNotForm},
		{"multipart/form-data; boundary=\"a\\b\"", "", ErrNotForm},
		{"multipart/form-data; boundary=\"a", "", ErrNotForm},
		{"multipart/form-data; boundary=" + strings.Repeat("b", maxBoundary+1), "", ErrNotForm},
		{"multipart/form-data; " + strings.Repeat(";", 1<<20), "", ErrNotForm},
		{"multipart/form-data; boundary=b; charset=utf-16", "", ErrEncoding},
	} {
		got, err := parseContentType([]byte(c.contentType))
		if string(got) != c.boundary || !errors.Is(err, c.want) {
			t.Errorf("%.80q: got %q %v, want %q %v", c.contentType, got, err, c.boundary, c.want)
		}
	}
}

// A form cut at any byte before its last boundary ends is refused, and seen to be cut.
func TestTruncatedMultipart(t *testing.T) {
	body := upload + field("model", "whisper") + "--b--"
	for n := 1; n < len(body); n++ {
		f := form(body[:n])
		if _, err := PeekMultipart(f.contentType, f.body); !errors.Is(err, ErrTruncated) {
			t.Fatalf("cut at byte %d: got %v, want ErrTruncated", n, err)
		}
	}
}

// What the standard library writes is read back.
func TestPeekMultipartOfWriter(t *testing.T) {
	body, contentType := writeForm(t, "whisper", bytes.Repeat([]byte("\r\n--\x00\xff"), 1000))
	p, err := PeekMultipart(contentType, body)
	if err != nil || string(p.ModelBytes(body)) != "whisper" {
		t.Errorf("got %+v %v", p, err)
	}
}

func writeForm(t testing.TB, model string, file []byte) (body, contentType []byte) {
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	part, err := w.CreateFormFile("file", "a \"quoted\"; name.wav")
	if err != nil {
		t.Fatal(err)
	}
	if _, err = part.Write(file); err != nil {
		t.Fatal(err)
	}
	if err = errors.Join(w.WriteField("model", model), w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), []byte(w.FormDataContentType())
}

// A part that is no form data is refused: starlette reads its name, other readers
// of forms do not, and which model such a body asks for must not be a guess.
func TestOtherDispositionsAreRefused(t *testing.T) {
	for _, disposition := range []string{"attachment", "form-3data", "at\x7fachment", "", "inline"} {
		body := "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\na\r\n" +
			"--b\r\nContent-Disposition: " + disposition + "; name=\"model\"\r\n\r\nb\r\n--b--"
		if p, err := PeekMultipart([]byte("multipart/form-data; boundary=b"), []byte(body)); err == nil {
			t.Errorf("%q: read as model %q", disposition, p.ModelBytes([]byte(body)))
		}
	}
	body := "--b\r\nContent-Disposition: Form-Data; name=\"model\"\r\n\r\na\r\n--b--"
	if p, err := PeekMultipart([]byte("multipart/form-data; boundary=b"), []byte(body)); err != nil || string(p.ModelBytes([]byte(body))) != "a" {
		t.Errorf("Form-Data: %v", err)
	}
}
