package main

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime/debug"
)

// The part of CycloneDX 1.6 that is used; https://cyclonedx.org/docs/1.6/json/.
type (
	document struct {
		BOMFormat    string       `json:"bomFormat"`
		SpecVersion  string       `json:"specVersion"`
		Version      int          `json:"version"`
		Metadata     metadata     `json:"metadata"`
		Components   []component  `json:"components"`
		Dependencies []dependency `json:"dependencies"`
	}
	metadata struct {
		Component component `json:"component"`
	}
	component struct {
		Type     string    `json:"type"`
		BOMRef   string    `json:"bom-ref"`
		Name     string    `json:"name"`
		Version  string    `json:"version,omitempty"`
		PURL     string    `json:"purl,omitempty"`
		Licenses []license `json:"licenses,omitempty"`
		Props    []prop    `json:"properties,omitempty"`
	}
	license struct {
		Expression string `json:"expression"`
	}
	prop struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	dependency struct {
		Ref       string   `json:"ref"`
		DependsOn []string `json:"dependsOn,omitempty"`
	}
)

// writeCycloneDX lists what the linker put into a binary. It holds no time and no
// serial number: two builds of one source have one bill.
func writeCycloneDX(out io.Writer, info *debug.BuildInfo, modules []module) error {
	licence := map[string]string{}
	for _, m := range modules {
		licence[m.Path] = m.Licence
	}
	main := component{Type: "application", BOMRef: "lbd", Name: "lbd", Licenses: []license{{"Apache-2.0"}}}
	for _, s := range info.Settings {
		main.Props = append(main.Props, prop{"go:build:" + s.Key, s.Value})
	}
	d := document{BOMFormat: "CycloneDX", SpecVersion: "1.6", Version: 1, Metadata: metadata{main}}
	std := component{Type: "library", BOMRef: "std", Name: "std", Version: info.GoVersion, PURL: "pkg:golang/std@" + info.GoVersion, Licenses: []license{{"BSD-3-Clause"}}}
	d.Components = append(d.Components, std)
	refs := []string{std.BOMRef}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		c := component{
			Type: "library", BOMRef: m.Path + "@" + m.Version, Name: m.Path, Version: m.Version, PURL: "pkg:golang/" + m.Path + "@" + m.Version,
			Props: []prop{{"go:sum", m.Sum}}, // h1: is a hash of hashes, which no CycloneDX algorithm names
		}
		l, ok := licence[m.Path]
		if !ok {
			return fmt.Errorf("%s is in the binary, but not in the module graph; want a binary of this source", m.Path)
		}
		c.Licenses = []license{{l}}
		d.Components = append(d.Components, c)
		refs = append(refs, c.BOMRef)
	}
	d.Dependencies = []dependency{{Ref: "lbd", DependsOn: refs}}
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(d)
}
