package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"lbd/balancer"
)

// fileParser is the koanf parser of the configuration file. It works on YAML
// nodes and not on decoded maps, because only nodes know their line and the
// text as it was written.
type fileParser struct{ l *loader }

// fileFailed marks, in loader.failed, a file without usable structure.
const fileFailed = "(file)"

// Unmarshal returns the settings of the file. What is wrong with it is noted in
// the loader, so that one bad value does not hide the others.
func (p *fileParser) Unmarshal(data []byte) (map[string]any, error) {
	root, err := parseYAML(data)
	if err != nil {
		p.l.failed[fileFailed] = true
		p.l.fail(Origin{FromFile, p.l.file, syntaxLine(data, err)}, "", "%s", syntaxMessage(err))
		return map[string]any{}, nil
	}
	return p.settings(root), nil
}

// Marshal is part of koanf.Parser; Config.Print does this job.
func (p *fileParser) Marshal(map[string]any) ([]byte, error) {
	return nil, errors.New("not supported")
}

// parseYAML returns the root node of the only document, nil for an empty one.
// The library panics on some malformed input; here that is an error like any
// other.
func parseYAML(data []byte) (root *yaml.Node, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("not YAML: %v", r)
		}
	}()
	var doc, second yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if err := dec.Decode(&second); err == nil {
		return nil, fmt.Errorf("line %d: a second document; want one", second.Line)
	} else if !errors.Is(err, io.EOF) {
		return nil, err
	}
	return doc.Content[0], nil
}

// syntaxSearchLines bounds the search of syntaxLine, which is quadratic.
const syntaxSearchLines = 500

// syntaxLine finds the line of a syntax error. The library reports the line at
// which the enclosing block begins, or none; the smallest number of leading
// lines with the same error ends at the line that shows it.
func syntaxLine(data []byte, err error) int {
	lines := bytes.SplitAfter(data, []byte("\n"))
	if len(lines) <= syntaxSearchLines {
		size := 0
		for i, line := range lines {
			size += len(line)
			if _, e := parseYAML(data[:size]); e != nil && e.Error() == err.Error() {
				return i + 1
			}
		}
	}
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		if n, e := strconv.Atoi(m[1]); e == nil {
			return n
		}
	}
	return 1
}

var yamlLine = regexp.MustCompile(`line ([0-9]+): `)

// syntaxWants says what the library's words ask for, where people meet them.
var syntaxWants = map[string]string{
	"found character that cannot start any token":     "want spaces where a tab is, and quotes around values that begin with @, ` or %",
	"mapping values are not allowed in this context":  "want one KEY: VALUE per line, and quotes around values that contain a colon and a space",
	"did not find expected key":                       "want KEY: VALUE or - VALUE, indented like its neighbours",
	"did not find expected '-' indicator":             "want - VALUE, indented like its neighbours",
	"did not find expected ',' or ']'":                "want the list closed with ]",
	"did not find expected ',' or '}'":                "want the mapping closed with }",
	"could not find expected ':'":                     "want KEY: VALUE",
	"found unexpected end of stream":                  "want the quoted text closed",
	"found a tab character that violates indentation": "want spaces instead of tabs",
}

func syntaxMessage(err error) string {
	message := yamlLine.ReplaceAllString(strings.TrimPrefix(err.Error(), "yaml: "), "")
	if want := syntaxWants[message]; want != "" {
		message += "; " + want
	}
	return message
}

func (l *loader) at(n *yaml.Node) Origin { return Origin{FromFile, l.file, n.Line} }

func (p *fileParser) settings(root *yaml.Node) map[string]any {
	layer := map[string]any{}
	if root == nil || isNull(root) {
		return layer
	}
	ok := p.l.mapping(root, "", keyNames, func(name string, k, v *yaml.Node) {
		row := keyByName(name)
		if value, ok := p.value(row, v); ok {
			layer[name] = setting{value, p.l.at(k)}
		}
	})
	if !ok {
		p.l.failed[fileFailed] = true
	}
	return layer
}

// value reads the value of a top-level key. A list without elements, which is
// what remains when all of them are commented out, counts as not given.
func (p *fileParser) value(k *key, n *yaml.Node) (any, bool) {
	var value any
	var ok bool
	before := len(p.l.errs)
	switch k.field(&blank).(type) {
	case *[]Model:
		if isNull(n) {
			return nil, false
		}
		value, ok = p.l.models(n), true
	case *[]balancer.Endpoint:
		if isNull(n) {
			return nil, false
		}
		value, ok = p.endpoints(k, n)
	case *[]string:
		if isNull(n) {
			return nil, false
		}
		value, ok = p.list(k, n)
	default:
		var text string
		if text, ok = p.l.scalar(n, k.name, k.secret()); ok {
			value, ok = p.l.read(k, text, p.l.at(n))
		}
	}
	if len(p.l.errs) > before {
		p.l.failed[k.name] = true
		return nil, false
	}
	return value, ok
}

func (p *fileParser) endpoints(k *key, n *yaml.Node) (any, bool) {
	if n.Kind == yaml.ScalarNode {
		return p.l.read(k, n.Value, p.l.at(n))
	}
	return p.l.readEndpoints(k, p.elements(k, n))
}

func (p *fileParser) list(k *key, n *yaml.Node) (any, bool) {
	if n.Kind == yaml.ScalarNode {
		return p.l.read(k, n.Value, p.l.at(n))
	}
	return p.l.checkList(k, p.elements(k, n))
}

func (p *fileParser) elements(k *key, n *yaml.Node) (parts []located) {
	p.l.sequence(n, k.name, func(path string, item *yaml.Node) {
		if text, ok := p.l.scalar(item, path, false); ok {
			parts = append(parts, located{strings.TrimSpace(text), p.l.at(item)})
		}
	})
	return parts
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// describe names what stands where something else is wanted.
func describe(n *yaml.Node) string {
	switch {
	case isNull(n):
		return "has no value"
	case n.Kind == yaml.MappingNode:
		return "is a mapping"
	case n.Kind == yaml.SequenceNode:
		return "is a list"
	case n.Kind == yaml.AliasNode:
		return "is a YAML alias, which is not supported"
	default:
		return fmt.Sprintf("is %q", n.Value)
	}
}

// scalar returns the text of a scalar as it was written.
func (l *loader) scalar(n *yaml.Node, path string, secret bool) (string, bool) {
	switch {
	case isNull(n):
		l.fail(l.at(n), path, `has no value; want one, "" for an empty one, or the line left out`)
	case n.Kind != yaml.ScalarNode && secret:
		l.fail(l.at(n), path, "is not a single value; want one")
	case n.Kind != yaml.ScalarNode:
		l.fail(l.at(n), path, "%s; want a single value", describe(n))
	default:
		return n.Value, true
	}
	return "", false
}

// sequence calls f for each element of a list.
func (l *loader) sequence(n *yaml.Node, path string, f func(path string, item *yaml.Node)) {
	if n.Kind != yaml.SequenceNode {
		l.fail(l.at(n), path, "%s; want a list", describe(n))
		return
	}
	for i, item := range n.Content {
		f(fmt.Sprintf("%s[%d]", path, i), item)
	}
}

// mapping calls f for each known key of a mapping and notes unknown and repeated
// ones. It returns false for something that is no mapping.
func (l *loader) mapping(n *yaml.Node, path string, known []string, f func(name string, k, v *yaml.Node)) bool {
	if n.Kind != yaml.MappingNode {
		keys := "keys of lbd.example.yml"
		if path != "" {
			keys = "keys " + strings.Join(known, ", ")
		}
		l.fail(l.at(n), path, "%s; want a mapping with the %s", describe(n), keys)
		return false
	}
	first := map[string]int{}
	for pair := range slices.Chunk(n.Content, 2) {
		k, v := pair[0], pair[1]
		switch line, seen := first[k.Value]; {
		case k.Kind != yaml.ScalarNode:
			l.fail(l.at(k), path, "a key %s; want plain text", describe(k))
		case !slices.Contains(known, k.Value):
			l.fail(l.at(k), join(path, k.Value), "unknown key%s", didYouMean(k.Value, known))
		case seen:
			l.fail(l.at(k), join(path, k.Value), "repeated; first given in line %d", line)
		default:
			first[k.Value] = k.Line
			f(k.Value, k, v)
		}
	}
	return true
}

func join(path, name string) string {
	if strconv.Quote(name) != `"`+name+`"` {
		name = strconv.Quote(name)
	}
	if path == "" {
		return name
	}
	return path + "." + name
}
