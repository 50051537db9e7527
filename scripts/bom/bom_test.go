package main

import (
	"bytes"
	"encoding/json"
	"os"
	"runtime/debug"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// THIRD_PARTY.md is what go.mod says it should be.
func TestThirdPartyIsCurrent(t *testing.T) {
	var want bytes.Buffer
	if err := run([]string{"licences"}, &want); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../THIRD_PARTY.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Error("THIRD_PARTY.md is stale; run go run ./scripts/bom licences > THIRD_PARTY.md")
	}
}

func TestIdentify(t *testing.T) {
	const bsd = "Redistribution and use in source and binary forms, with or without"
	for body, want := range map[string]string{
		"Permission is hereby granted, free of charge, to any person": "MIT",
		bsd: "BSD-2-Clause",
		bsd + " ... may be used to endorse or promote products": "BSD-3-Clause",
		"Apache License\n  Version 2.0, January 2004":           "Apache-2.0",
		"All rights reserved.":                                  "",
		"GNU GENERAL PUBLIC LICENSE":                            "",
		"Permission is hereby\n granted, free of charge ... Licensed under the Apache License\n Version 2.0, January 2004": "Apache-2.0 AND MIT",
	} {
		if got := identify(body); got != want {
			t.Errorf("%q: %q; want %q", body, got, want)
		}
	}
}

func TestCycloneDX(t *testing.T) {
	info := &debug.BuildInfo{GoVersion: "go1.26.8", Deps: []*debug.Module{
		{Path: "a.example/x", Version: "v1.0.0", Sum: "h1:x"},
		{Path: "b.example/y", Version: "v2.0.0", Replace: &debug.Module{Path: "b.example/y", Version: "v1.9.0"}},
	}}
	modules := []module{{Path: "a.example/x", Licence: "MIT"}, {Path: "b.example/y", Licence: "Apache-2.0"}}
	var b bytes.Buffer
	if err := writeCycloneDX(&b, info, modules); err != nil {
		t.Fatal(err)
	}
	var d document
	if err := json.Unmarshal(b.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	if len(d.Components) != 3 || d.Components[2].PURL != "pkg:golang/b.example/y@v1.9.0" || d.Components[1].Licenses[0].Expression != "MIT" ||
		len(d.Dependencies[0].DependsOn) != 3 {
		t.Errorf("%s", b.String())
	}
	if err := writeCycloneDX(&b, info, modules[:1]); err == nil || !strings.Contains(err.Error(), "b.example/y") {
		t.Errorf("a module without a licence: %v", err)
	}
}
