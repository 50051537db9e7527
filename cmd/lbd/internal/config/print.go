package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"lbd/balancer"
)

// Print writes the configuration as YAML, with the origin of every key behind
// it and secrets redacted. What it prints loads again to the same
// configuration, secrets aside.
func (c *Config) Print(w io.Writer) error {
	root := &yaml.Node{Kind: yaml.MappingNode}
	for _, k := range keys {
		name, value := text(k.name), valueNode(k.field(c))
		name.Tag = ""
		if value.Kind == yaml.ScalarNode || len(value.Content) == 0 {
			value.LineComment = c.origins[k.name].String()
		} else {
			name.LineComment = c.origins[k.name].String()
		}
		root.Content = append(root.Content, name, value)
	}
	return encode(w, root)
}

func encode(w io.Writer, root *yaml.Node) error {
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(root); err != nil {
		return fmt.Errorf("cannot print the configuration: %w", err)
	}
	return enc.Close()
}

// MarshalJSON returns the values by key, in the order of the table, with
// durations and sizes as a user writes them and secrets redacted.
func (c *Config) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, k := range keys {
		if i > 0 {
			b.WriteByte(',')
		}
		value, err := json.Marshal(plain(k.field(c)))
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%q:%s", k.name, value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// plain turns a field into what JSON and YAML can show.
func plain(field any) any {
	switch v := field.(type) {
	case *string:
		return *v
	case *Secret:
		return v.String()
	case *bool:
		return *v
	case *int:
		return *v
	case *Size:
		return v.String()
	case *time.Duration:
		return formatDuration(*v)
	case *[]balancer.Endpoint:
		urls := make([]string, len(*v))
		for i, e := range *v {
			urls[i] = e.String()
		}
		return urls
	case *[]string:
		return append([]string{}, *v...)
	case *[]Model:
		return plainModels(*v)
	default:
		panic(fmt.Sprintf("BUG: cannot show a %T", field))
	}
}

// plainModel and plainReplica give the parts of models their names in the file.
type plainModel struct {
	Name     string         `json:"name" yaml:"name"`
	Aliases  []string       `json:"aliases,omitempty" yaml:"aliases,flow,omitempty"`
	Strategy string         `json:"strategy" yaml:"strategy"`
	Cache    int            `json:"cache_tokens,omitempty" yaml:"cache_tokens,omitempty"`
	Replicas []plainReplica `json:"replicas,omitempty" yaml:"replicas,omitempty"`
}

type plainReplica struct {
	URL    string `json:"url" yaml:"url"`
	Device string `json:"device,omitempty" yaml:"device,omitempty"`
	Weight int    `json:"weight" yaml:"weight"`
	Cache  int    `json:"cache_tokens,omitempty" yaml:"cache_tokens,omitempty"`

	APIKeyFile    string `json:"api_key_file,omitempty" yaml:"api_key_file,omitempty"`
	APIKeyEnv     string `json:"api_key_env,omitempty" yaml:"api_key_env,omitempty"`
	TLSCAFile     string `json:"tls_ca_file,omitempty" yaml:"tls_ca_file,omitempty"`
	TLSCertFile   string `json:"tls_cert_file,omitempty" yaml:"tls_cert_file,omitempty"`
	TLSKeyFile    string `json:"tls_key_file,omitempty" yaml:"tls_key_file,omitempty"`
	TLSServerName string `json:"tls_server_name,omitempty" yaml:"tls_server_name,omitempty"`
	TLSSkipVerify string `json:"tls_insecure_skip_verify,omitempty" yaml:"tls_insecure_skip_verify,omitempty"`
}

func plainModels(models []Model) []plainModel {
	out := make([]plainModel, len(models))
	for i, m := range models {
		out[i] = plainModel{Name: m.Name, Aliases: m.Aliases, Strategy: m.Strategy, Cache: m.CacheTokens}
		for _, r := range m.Replicas {
			out[i].Replicas = append(out[i].Replicas, plainReplicaOf(r))
		}
	}
	return out
}

func plainReplicaOf(r Replica) plainReplica {
	a := &r.Access
	return plainReplica{
		URL: r.Endpoint.String(), Device: r.Device, Weight: r.Weight, Cache: r.CacheTokens, APIKeyFile: a.APIKeyFile, APIKeyEnv: a.APIKeyEnv,
		TLSCAFile: a.TLSCAFile, TLSCertFile: a.TLSCertFile, TLSKeyFile: a.TLSKeyFile, TLSServerName: a.TLSServerName,
		TLSSkipVerify: a.TLSSkipVerify,
	}
}

func valueNode(field any) *yaml.Node {
	switch v := plain(field).(type) {
	case string:
		n := text(v)
		switch field.(type) {
		case *time.Duration, *Size:
			n.Tag = "" // a bare number needs no quotes
		}
		return n
	default:
		n := &yaml.Node{}
		if err := n.Encode(v); err != nil {
			panic("BUG: " + err.Error())
		}
		return n
	}
}

// text is a string that YAML quotes where it would otherwise be read as
// something else. An address such as :8080 is quoted for human readers.
func text(s string) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
	if strings.HasPrefix(s, ":") {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}
