package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"lbd/cmd/lbd/internal/daemon"
)

func newCheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check --config FILE",
		Short: "Validate a configuration file",
		Long: `Validate a configuration file together with the environment, as lbd would start
with it, and the files it names: keys, tokens and certificates. Prints "FILE: ok",
or every mistake with its line, key and what was wanted, and exits with 1.`,
		Example: "  lbd check --config lbd.yml",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !cmd.Flags().Changed("config") && os.Getenv("LBD_CONFIG") == "" {
				return usagef("no file to check; want --config FILE")
			}
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			if err := daemon.Check(cfg); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: ok\n", cfg.File)
			return nil
		},
	}
	cmd.Flags().StringP("config", "c", "", "configuration `file` (YAML)")
	return cmd
}
