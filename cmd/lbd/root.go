package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"lbd/cmd/lbd/internal/config"
)

// newRootCommand returns lbd itself, whose action is to run the proxy, with all
// subcommands.
func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "lbd [flags]",
		Short: "Load balancer for vLLM replicas",
		Long: `lbd makes vLLM replicas look like one OpenAI-compatible server and sends every
request to the replica that will answer it soonest. Without a command it runs
the proxy.`,
		Example: `  lbd --endpoints http://vllm-1:8000,http://vllm-2:8000
  lbd --config lbd.yml --strategy least-inflight --log-format console`,
		Version:       buildVersion().String(),
		Args:          noSuchCommand,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(cmd)
		},
	}
	config.Flags(root.Flags())
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetFlagErrorFunc(flagError)
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { writeHelp(cmd.OutOrStdout(), cmd) })
	root.SetUsageFunc(func(cmd *cobra.Command) error { return writeHelp(cmd.OutOrStderr(), cmd) })
	root.CompletionOptions.HiddenDefaultCmd = true
	for _, newCommand := range subcommands {
		sub := newCommand()
		sub.Args = usageArgs(sub.Args)
		root.AddCommand(sub)
	}
	return root
}

// loadConfig reads the configuration that the command's flags, the environment
// and the file give now. A reload calls it again.
func loadConfig(cmd *cobra.Command) (*config.Config, error) {
	return config.Load(config.Options{
		Flags:      cmd.Flags(),
		Environ:    os.Environ(),
		Strategies: strategyNames(),
	})
}

// noSuchCommand refuses arguments of lbd itself: each can only be a command that
// does not exist.
func noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, sub := range cmd.Commands() {
		if !sub.Hidden {
			names = append(names, sub.Name())
		}
	}
	if args[0] == "true" || args[0] == "false" {
		return usagef("unknown command %q; a flag takes it with =, such as --admission=%s", args[0], args[0])
	}
	return usagef("unknown command %q%s", args[0], didYouMean("", args[0], names))
}

// wanted says what flags of subcommands take, by pflag's names of their types: its own
// errors are those of strconv. The proxy's settings are strings that config reads.
var wanted = map[string]string{
	"bool":     "true or false",
	"int":      "a whole number",
	"int64":    "a whole number",
	"uint64":   "a whole number, 0 or more",
	"float64":  "a number",
	"duration": "a time with its unit, such as 500ms, 30s or 5m",
}

// flagError makes pflag's errors usage errors and guesses what was meant.
func flagError(cmd *cobra.Command, err error) error {
	if errors.Is(err, pflag.ErrHelp) {
		return err
	}
	var invalid *pflag.InvalidValueError
	if errors.As(err, &invalid) && wanted[invalid.GetFlag().Value.Type()] != "" {
		return usagef("--%s: %q; want %s", invalid.GetFlag().Name, invalid.GetValue(), wanted[invalid.GetFlag().Value.Type()])
	}
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) || unknown.GetSpecifiedShortnames() != "" {
		return usageError{err}
	}
	name := unknown.GetSpecifiedName()
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	return usagef("unknown flag --%s%s", name, didYouMean("--", name, names))
}

func didYouMean(prefix, name string, known []string) string {
	if near := config.Nearest(name, known); near != "" {
		return "; did you mean " + prefix + near + "?"
	}
	return ""
}

// usageArgs says which argument a command does not take, or that one is missing,
// and what it wants: cobra's own words for an argument too many are "unknown
// command", also where a file or an address was typed.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	if check == nil {
		return nil
	}
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case check(cmd, args) == nil:
			return nil
		case len(args) == 0:
			return usagef("an argument is missing; want %s", cmd.UseLine())
		}
		return usagef("unexpected argument %q; want %s", args[len(args)-1], cmd.UseLine())
	}
}
