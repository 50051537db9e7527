package workload

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// node is a JSON value with the line it begins on. Keys keep their order and
// their repetitions: a key that stands twice is an error, not the last one's.
type node struct {
	line   int
	value  any // nil, bool, string or json.Number; what follows for the others
	isList bool
	isMap  bool
	items  []*node
	fields []field
}

type field struct {
	name  string
	line  int
	value *node
}

// maxDepth bounds nesting; a workload has five levels.
const maxDepth = 32

// tree reads one JSON document.
type tree struct {
	text []byte
	in   *json.Decoder
	// line is that of offset; lines are counted once.
	line, offset int
}

func parseTree(text []byte) (*node, error) {
	t := &tree{text: text, in: json.NewDecoder(bytes.NewReader(text)), line: 1}
	t.in.UseNumber()
	root, err := t.node(0)
	if err == nil {
		if _, more := t.in.Token(); !errors.Is(more, io.EOF) {
			err = errors.New("more than one value; want one object")
		}
	}
	if err != nil {
		var syntax *json.SyntaxError
		switch {
		case errors.As(err, &syntax):
			t.advance(int(syntax.Offset))
		default:
			t.advance(int(t.in.InputOffset()))
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("the file ends within a value")
		}
		return nil, fmt.Errorf("%d: %w", t.line, err)
	}
	return root, nil
}

func (t *tree) advance(offset int) {
	offset = min(max(offset, t.offset), len(t.text))
	t.line += bytes.Count(t.text[t.offset:offset], []byte("\n"))
	t.offset = offset
}

// token returns the next token and counts lines up to its end; no token of JSON
// spans lines.
func (t *tree) token() (json.Token, error) {
	tok, err := t.in.Token()
	if err == nil {
		t.advance(int(t.in.InputOffset()))
	}
	return tok, err
}

func (t *tree) node(depth int) (*node, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("more than %d levels", maxDepth)
	}
	tok, err := t.token()
	if err != nil {
		return nil, err
	}
	n := &node{line: t.line, value: tok}
	switch tok {
	case json.Delim('['):
		n.isList = true
		err = t.list(n, depth)
	case json.Delim('{'):
		n.isMap = true
		err = t.object(n, depth)
	}
	return n, err
}

func (t *tree) list(n *node, depth int) error {
	for t.in.More() {
		item, err := t.node(depth + 1)
		if err != nil {
			return err
		}
		n.items = append(n.items, item)
	}
	_, err := t.token()
	return err
}

func (t *tree) object(n *node, depth int) error {
	for t.in.More() {
		name, err := t.token()
		if err != nil {
			return err
		}
		f := field{name: name.(string), line: t.line}
		if f.value, err = t.node(depth + 1); err != nil {
			return err
		}
		n.fields = append(n.fields, f)
	}
	_, err := t.token()
	return err
}

// String is the value as an error shows it.
func (n *node) String() string {
	switch v := n.value.(type) {
	case nil:
		return "null"
	case json.Delim:
		if n.isList {
			return "a list"
		}
		return "an object"
	case string:
		return fmt.Sprintf("%q", v)
	default:
		return fmt.Sprint(v)
	}
}
