package config

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

const exampleHead = `# lbd.example.yml: every key of lbd with its default.
#
# Generated from the table of keys; to renew it:
#   go test ./cmd/lbd/internal/config -run TestExample -update
#
# A key can be left out. The key some_key is also the flag --some-key and the
# variable LBD_SOME_KEY (an empty variable counts as unset); a flag beats the
# environment, which beats this file. Unknown keys are errors.
#
# Durations: 500ms, 1s, 5m, 1h30m; a bare number is seconds.
# Sizes: 512KiB, 64MiB, 1GiB; a bare number is bytes.
# Reload: SIGHUP or POST /reload on the admin listener. "restart" marks what a
# reload leaves as it was.
#
#   lbd check --config lbd.example.yml     validate
#   lbd config --config lbd.example.yml    show what is in force, and where it came from
`

// exampleValues stand where the default is an empty list.
var exampleValues = map[string]string{
	"endpoints": `endpoints:
  - http://vllm-qwen-7b-1:8000
  - http://vllm-qwen-7b-2:8000
`,
	"models": `models:
  - name: meta-llama/Llama-3.1-8B-Instruct  # as clients and the replicas name it
    aliases: [llama-8b]                     # further names for clients; default none
    strategy: least-inflight                # default: the key strategy
    replicas:                               # pinned; default: learned from endpoints
      - url: http://vllm-llama-8b-1:8000
        device: gpu0                        # replicas with the same device share it; default: its own
        weight: 1                           # capacity relative to the others, from 1; default 1
        cache_tokens: 16000                 # prompt tokens it keeps cached beyond those in use, also per model;
                                            # default: as its metrics say
      - url: http://vllm-llama-8b-2:8000
        device: gpu1
        weight: 1
      - url: dns+http://vllm-llama-8b-spare:8000  # every address of the name; the keys hold for each of them
`,
}

// WriteExample writes the annotated example file.
func WriteExample(w io.Writer) error {
	var b bytes.Buffer
	b.WriteString(exampleHead)
	group := ""
	for _, k := range keys {
		if k.group != group {
			group = k.group
			fmt.Fprintf(&b, "\n\n# ---- %s ----\n", group)
		}
		b.WriteString("\n" + k.comment())
		if value, ok := exampleValues[k.name]; ok {
			b.WriteString(value)
			continue
		}
		c := new(Config)
		l := &loader{failed: map[string]bool{}}
		value, _ := l.read(k, k.def, Origin{})
		setField(k, c, value)
		b.WriteString(k.name + ": ")
		n := valueNode(k.field(c))
		if n.Kind == yaml.SequenceNode {
			n.Style |= yaml.FlowStyle // it stands behind its key
		}
		if err := encode(&b, n); err != nil {
			return err
		}
	}
	_, err := w.Write(b.Bytes())
	return err
}

// comment is all that the table says of a key, as YAML comments.
func (k *key) comment() string {
	text := sentence(k.help)
	if k.more != "" {
		text += " " + k.more
	}
	facts := []string{"type: " + k.kind()}
	if unit := k.unit(); unit != "" {
		facts = append(facts, unit)
	}
	facts = append(facts, "default: "+k.shownDefault(), "reload: "+k.shownReload())
	if k.alias != "" {
		facts = append(facts, "also read from "+k.alias)
	}
	if !k.scalar() {
		facts = append(facts, "file only")
	}
	return wrap(text) + wrap(strings.Join(facts, "; "))
}

func sentence(s string) string { return strings.ToUpper(s[:1]) + s[1:] + "." }

func (k *key) shownDefault() string {
	if _, ok := exampleValues[k.name]; ok {
		return "none (what follows is an example)"
	}
	if k.def == "" {
		return "none"
	}
	return k.def
}

func (k *key) shownReload() string {
	if k.reload {
		return "yes"
	}
	return "restart"
}

// unit gives the limits of a number in its unit.
func (k *key) unit() string {
	if k.max == 0 {
		return ""
	}
	shown := func(n int64) string {
		switch k.kind() {
		case "duration":
			return formatDuration(time.Duration(n))
		case "size":
			return Size(n).String()
		}
		return fmt.Sprint(n)
	}
	limits := shown(k.min) + " to " + shown(k.max)
	if k.zero {
		limits = "0 or " + limits
	}
	return limits
}

// wrap folds text into comment lines of at most 100 columns.
func wrap(text string) string {
	var b strings.Builder
	line := "#"
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > 100 {
			b.WriteString(line + "\n")
			line = "#"
		}
		line += " " + word
	}
	return b.String() + line + "\n"
}
