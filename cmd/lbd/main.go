// Command lbd is a load balancer for vLLM replicas. Without a subcommand it runs
// the proxy:
//
//	lbd --endpoints http://vllm-1:8000,http://vllm-2:8000
//
// Everything a user reads on a terminal is written here and in the files of the
// subcommands; the packages below return values and errors.
package main

import (
	"context"
	"io"
	"os"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// run executes one command line and returns the exit code. args is never nil:
// cobra would take os.Args instead.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRootCommand()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	return report(stderr, cmd, err)
}
