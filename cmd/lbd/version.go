package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// version is set by the release build:
// go build -ldflags "-X main.version=v1.2.3".
var version string

// build is what is known about this binary.
type build struct {
	Version  string // from the release build or the module; "devel" without either
	Revision string // commit; empty when built outside a repository
	Time     string // of the commit, RFC 3339
	Modified bool   // built from a tree with uncommitted changes
}

// buildVersion reads the build information that the Go tool put into the binary.
func buildVersion() build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	return readBuild(version, info)
}

func readBuild(release string, info *debug.BuildInfo) build {
	b := build{Version: release}
	if b.Version == "" {
		b.Version = strings.Trim(info.Main.Version, "()") // "(devel)" is no version
	}
	if b.Version == "" {
		b.Version = "devel"
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	return b
}

// String returns one line for people.
func (b build) String() string {
	parts := []string{}
	if b.Revision != "" {
		commit := "commit " + b.Revision[:min(12, len(b.Revision))]
		if b.Modified {
			commit += " with changes"
		}
		parts = append(parts, commit)
	}
	if b.Time != "" {
		parts = append(parts, b.Time)
	}
	parts = append(parts, runtime.Version(), runtime.GOOS+"/"+runtime.GOARCH)
	return fmt.Sprintf("lbd %s (%s)", b.Version, strings.Join(parts, ", "))
}

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of lbd",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), buildVersion())
			return err
		},
	}
}
