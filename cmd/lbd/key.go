package main

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"lbd/access/keys"
)

// newKeyCommand returns `lbd key`, which makes API keys for clients.
func newKeyCommand() *cobra.Command {
	var limits keys.Limits
	var fromStdin bool
	cmd := &cobra.Command{
		Use:   "key NAME [flags]",
		Short: "Make an API key for a client and the line for api_keys_file",
		Long: `Make an API key for a client. The key is written to standard error, once: it is
kept nowhere. The line for the file named by api_keys_file, which holds the key's
hash, is written to standard output. A reload (SIGHUP or POST /reload) lets the
client in.`,
		Example: `  lbd key alice >> keys.txt
  lbd key batch --models llama-8b,qwen/* --max-in-flight 8 --tokens-per-minute 200000 >> keys.txt
  lbd key bob --stdin < key.txt >> keys.txt`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			line, key, err := makeKey(args[0], limits, fromStdin, cmd.InOrStdin())
			if err != nil {
				return usageError{err}
			}
			if !fromStdin {
				fmt.Fprintln(cmd.ErrOrStderr(), key)
			}
			fmt.Fprintln(cmd.OutOrStdout(), line)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringSliceVar(&limits.Models, "models", nil, "models the client may use, a * at the end for any ending (default all)")
	f.Int64Var(&limits.MaxInFlight, "max-in-flight", 0, "most requests at a time (default no limit)")
	f.Int64Var(&limits.RequestsPerMinute, "requests-per-minute", 0, "most requests per minute (default no limit)")
	f.Int64Var(&limits.TokensPerMinute, "tokens-per-minute", 0, "most tokens per minute, prompts and answers (default no limit)")
	f.BoolVar(&fromStdin, "stdin", false, "hash the key in the first line of standard input instead of making one")
	return cmd
}

// makeKey returns the line for the file and the key. What the parser of the file
// refuses is refused here.
func makeKey(name string, l keys.Limits, fromStdin bool, stdin io.Reader) (line, key string, err error) {
	if err := keys.CheckName(name); err != nil {
		return "", "", fmt.Errorf("the command line %w", err)
	}
	key = keys.Generate()
	if fromStdin {
		text, err := bufio.NewReader(io.LimitReader(stdin, 4096)).ReadString('\n')
		if err != nil && err != io.EOF {
			return "", "", err
		}
		key = strings.TrimSpace(text)
		if err := keys.CheckKey(key); err != nil {
			return "", "", err
		}
	}
	e := keys.Entry{Name: name, Digest: keys.DigestOf(key), Limits: l}
	for _, n := range []int64{l.MaxInFlight, l.RequestsPerMinute, l.TokensPerMinute} {
		if n < 0 {
			return "", "", fmt.Errorf("a limit is %d; want a number above 0, or none", n)
		}
	}
	if again, err := keys.ParseFile(e.String()); err != nil || len(again) != 1 {
		return "", "", fmt.Errorf("the limits cannot be written down: %w", err)
	}
	return e.String(), key, nil
}
