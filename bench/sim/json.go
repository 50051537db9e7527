package sim

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// object is a decoded JSON object with Python's semantics: the last of several
// equal keys wins and stays where the first stood.
type object struct {
	raw  []byte
	keys []string
	vals map[string]json.RawMessage
}

var errNotObject = errors.New("not an object")

// parseObject decodes the top level of a body.
func parseObject(b []byte) (*object, error) {
	if !json.Valid(b) {
		var v any
		return nil, json.Unmarshal(b, &v)
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errNotObject
	}
	o := &object{raw: b, vals: make(map[string]json.RawMessage)}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, err
		}
		var v json.RawMessage
		if err := dec.Decode(&v); err != nil {
			return nil, err
		}
		key := t.(string)
		if _, again := o.vals[key]; !again {
			o.keys = append(o.keys, key)
		}
		o.vals[key] = v
	}
	return o, nil
}

func (o *object) has(key string) bool { _, ok := o.vals[key]; return ok }

// null reports an absent or null value.
func (o *object) null(key string) bool {
	v, ok := o.vals[key]
	return !ok || string(v) == "null"
}

// truthy is Python's bool(data.get(key)).
func (o *object) truthy(key string) bool {
	switch s := string(o.vals[key]); s {
	case "", "null", "false", `""`, "0", "0.0", "[]", "{}":
		return false
	default:
		return true
	}
}

// repr is Python's repr of a JSON value, as pydantic prints the input of a
// failed validation.
func repr(raw []byte) string {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var b strings.Builder
	if err := reprValue(dec, &b); err != nil {
		return "None"
	}
	return b.String()
}

func reprValue(dec *json.Decoder, b *strings.Builder) error {
	t, err := dec.Token()
	if err != nil {
		return err
	}
	switch v := t.(type) {
	case nil:
		b.WriteString("None")
	case bool:
		b.WriteString(map[bool]string{true: "True", false: "False"}[v])
	case json.Number:
		b.WriteString(reprNumber(string(v)))
	case string:
		b.WriteString(reprString(v))
	case json.Delim:
		return reprNested(dec, b, v)
	}
	return nil
}

func reprNested(dec *json.Decoder, b *strings.Builder, open json.Delim) error {
	b.WriteString(open.String())
	for i := 0; dec.More(); i++ {
		if i > 0 {
			b.WriteString(", ")
		}
		if err := reprValue(dec, b); err != nil {
			return err
		}
		if open != '{' {
			continue
		}
		b.WriteString(": ")
		if err := reprValue(dec, b); err != nil {
			return err
		}
	}
	end, err := dec.Token()
	if err != nil {
		return err
	}
	b.WriteString(end.(json.Delim).String())
	return nil
}

func reprNumber(s string) string {
	if !strings.ContainsAny(s, ".eE") {
		return s
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil && math.IsInf(f, 0) {
		return "inf"
	}
	return pythonFloat(f)
}

func reprString(s string) string {
	quote := byte('\'')
	if strings.Contains(s, "'") && !strings.Contains(s, `"`) {
		quote = '"'
	}
	b := []byte{quote}
	for _, r := range s {
		switch {
		case r == rune(quote) || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r == '\t':
			b = append(b, `\t`...)
		case r < 0x20 || r == 0x7f:
			b = append(b, `\x`...)
			b = append(b, "0123456789abcdef"[r>>4], "0123456789abcdef"[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return string(append(b, quote))
}

// pythonJSONError words a decode error as Python's json module does and gives
// the character it points at.
func pythonJSONError(b []byte, err error) (msg string, at int) {
	at = len(b)
	var syn *json.SyntaxError
	if errors.As(err, &syn) && !errors.Is(err, io.ErrUnexpectedEOF) && syn.Offset > 0 && int(syn.Offset) <= len(b) {
		at = int(syn.Offset) - 1
	}
	switch text := err.Error(); {
	case strings.Contains(text, "after object key:value pair"), strings.Contains(text, "after array element"):
		return "Expecting ',' delimiter", at
	case strings.Contains(text, "after object key"):
		return "Expecting ':' delimiter", at
	case strings.Contains(text, "looking for beginning of object key"):
		return "Expecting property name enclosed in double quotes", at
	case strings.Contains(text, "after top-level value"):
		return "Extra data", at
	case strings.Contains(text, "unexpected end"):
		if last := bytes.TrimRight(b, " \t\r\n"); len(last) > 0 && strings.IndexByte(`:,[{`, last[len(last)-1]) < 0 {
			return "Expecting ',' delimiter", len(b)
		}
	}
	return "Expecting value", at
}

// appendJSONString appends s quoted as Python's json.dumps(ensure_ascii=False)
// does.
func appendJSONString(b []byte, s string) []byte {
	b = append(b, '"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\r':
			b = append(b, '\\', 'r')
		case c == '\t':
			b = append(b, '\\', 't')
		case c < 0x20:
			b = append(b, '\\', 'u', '0', '0', "0123456789abcdef"[c>>4], "0123456789abcdef"[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}
