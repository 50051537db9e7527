package main

import (
	"github.com/spf13/cobra"

	"lbd/cmd/lbd/internal/config"
)

func newConfigCommand() *cobra.Command {
	example := false
	cmd := &cobra.Command{
		Use:   "config [flags]",
		Short: "Print the effective configuration and where each value came from",
		Long: `Print the configuration that lbd would run with, as YAML, and behind each key
where its value came from. Secrets are redacted.`,
		Example: `  lbd config --config lbd.yml
  LBD_STRATEGY=cycle lbd config --endpoints http://vllm-1:8000`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if example {
				return config.WriteExample(cmd.OutOrStdout())
			}
			cfg, err := loadConfig(cmd)
			if err != nil {
				return err
			}
			return cfg.Print(cmd.OutOrStdout())
		},
	}
	config.Flags(cmd.Flags())
	cmd.Flags().BoolVar(&example, "example", false, "print an annotated file with every key and its default instead")
	return cmd
}
