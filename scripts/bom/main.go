package main

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"os"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bom:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	switch {
	case len(args) == 1 && args[0] == "licences":
		modules, err := linked("lbd/cmd/lbd")
		if err != nil {
			return err
		}
		return writeLicences(out, modules)
	case len(args) == 2 && args[0] == "cyclonedx":
		info, err := buildinfo.ReadFile(args[1])
		if err != nil {
			return err
		}
		modules, err := linked("lbd/cmd/lbd")
		if err != nil {
			return err
		}
		return writeCycloneDX(out, info, modules)
	}
	return errors.New("want: licences, or cyclonedx BINARY")
}
