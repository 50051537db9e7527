// Package config turns defaults, a YAML file, the environment and flags into
// one checked [Config]. A later layer beats an earlier one:
//
//	defaults < file < environment < flags
//
// One table (keys.go and its parts, keys_*.go) holds every key with its name, meaning, default, limits
// and whether a reload applies it; the flags, the variables, the printed
// configuration and compose/lbd.example.yml are all derived from it, so they
// cannot disagree. The key metrics_poll_interval is the flag
// --metrics-poll-interval and the variable LBD_METRICS_POLL_INTERVAL.
//
// Invariants: a Config that Load returned is complete and valid, and nobody
// writes to it; an unknown key or variable is an error and never ignored; Load
// reports every mistake, each with its file and line, variable or flag; a
// secret is never printed, marshalled or quoted in an error.
//
//	fs := pflag.NewFlagSet("lbd", pflag.ContinueOnError)
//	config.Flags(fs)
//	fs.Parse(os.Args[1:])
//	cfg, err := config.Load(config.Options{Flags: fs, Environ: os.Environ(), Strategies: names})
package config
