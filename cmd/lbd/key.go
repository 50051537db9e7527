package main

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

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
  lbd key batch --models llama-8b,Qwen/* --max-in-flight 8 --tokens-per-minute 200000 >> keys.txt
  lbd key bob --stdin < key.txt >> keys.txt`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkLimits(cmd.Flags(), limits); err != nil {
				return err
			}
			line, key, err := makeKey(args[0], limits, fromStdin, cmd.InOrStdin())
			if err != nil {
				return usageError{err}
			}
			// A key whose line is lost lets nobody in, so the line comes first.
			if _, err := fmt.Fprintln(cmd.OutOrStdout(), line); err != nil {
				return fmt.Errorf("the line of the key is not written: %w", err)
			}
			if !fromStdin {
				fmt.Fprintln(cmd.ErrOrStderr(), key)
			}
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

// checkLimits refuses limits that would not be any. To an entry 0 and no models stand for
// no limit; who types them, or leaves a script's variable empty, means another thing.
func checkLimits(f *pflag.FlagSet, l keys.Limits) error {
	for flag, n := range map[string]int64{
		"max-in-flight": l.MaxInFlight, "requests-per-minute": l.RequestsPerMinute, "tokens-per-minute": l.TokensPerMinute,
	} {
		if f.Changed(flag) && n < 1 {
			return usagef("--%s %d; want 1 or more, or no such flag for no limit", flag, n)
		}
	}
	if f.Changed("models") && (len(l.Models) == 0 || slices.Contains(l.Models, "")) {
		return usagef("--models %q; want names of models, or no such flag for all", strings.Join(l.Models, ","))
	}
	return nil
}

// makeKey returns the line for the file and the key. What the parser of the file
// refuses is refused here.
func makeKey(name string, l keys.Limits, fromStdin bool, stdin io.Reader) (line, key string, err error) {
	if err := keys.CheckName(name); err != nil {
		if len(name) < keys.MinLength { // a longer one may be a key
			return "", "", fmt.Errorf("%q %w", name, err)
		}
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
	if again, err := keys.ParseFile(e.String()); err != nil || len(again) != 1 {
		return "", "", fmt.Errorf("the limits cannot be written down: %w", err)
	}
	return e.String(), key, nil
}
