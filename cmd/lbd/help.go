package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"lbd/cmd/lbd/internal/config"
)

// helpColumns is the width help is folded to.
const helpColumns = 110

// helpTextColumns is the width of what a command's help says above its flags.
const helpTextColumns = 84

// folded joins words to lines of a help text.
func folded(words []string, separator string) string {
	var b strings.Builder
	column := 0
	for i, word := range words {
		if i < len(words)-1 {
			word += separator
		}
		if column+len(strings.TrimRight(word, " ")) > helpTextColumns {
			b.WriteByte('\n')
			column = 0
		}
		b.WriteString(word)
		column += len(word)
	}
	return strings.ReplaceAll(b.String(), " \n", "\n")
}

// writeHelp writes the help of a command: what it does, examples, commands, and
// the flags under the headings of the configuration table.
func writeHelp(w io.Writer, cmd *cobra.Command) error {
	var b strings.Builder
	about := cmd.Long
	if about == "" {
		about = cmd.Short
	}
	fmt.Fprintf(&b, "%s\n\nUsage:\n  %s\n", strings.TrimSpace(about), cmd.UseLine())
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(&b, "  %s COMMAND [flags]\n", cmd.CommandPath())
	}
	if cmd.HasExample() {
		fmt.Fprintf(&b, "\nExamples:\n%s\n", strings.TrimRight(cmd.Example, "\n"))
	}
	writeCommands(&b, cmd)
	writeFlags(&b, cmd)
	if !cmd.HasParent() {
		b.WriteString("\nEvery setting is a flag, a variable and a key of the file: --log-level, LBD_LOG_LEVEL, log_level.\n" +
			"A flag beats the environment, which beats the file. lbd config shows what is in force and why.\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeCommands(b *strings.Builder, cmd *cobra.Command) {
	if !cmd.HasAvailableSubCommands() {
		return
	}
	b.WriteString("\nCommands:\n")
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			fmt.Fprintf(b, "  %-*s  %s\n", cmd.NamePadding(), sub.Name(), sub.Short)
		}
	}
}

// writeFlags writes the flags by heading: first those that have none of the
// table's, then the table's in its order.
func writeFlags(b *strings.Builder, cmd *cobra.Command) {
	const other = "Flags"
	headings := append([]string{other}, config.Groups()...)
	sets := map[string]*pflag.FlagSet{}
	for _, h := range headings {
		sets[h] = pflag.NewFlagSet(h, pflag.ContinueOnError)
		sets[h].SortFlags = false
	}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		h := other
		if a := f.Annotations[config.GroupAnnotation]; len(a) == 1 && slices.Contains(headings, a[0]) {
			h = a[0]
		}
		sets[h].AddFlag(f)
	})
	for _, h := range headings {
		if sets[h].HasAvailableFlags() {
			fmt.Fprintf(b, "\n%s:\n%s", h, sets[h].FlagUsagesWrapped(helpColumns))
		}
	}
}
