package config

import "github.com/spf13/pflag"

// GroupAnnotation is the pflag annotation that holds the heading of a flag in
// lbd --help.
const GroupAnnotation = "lbd_group"

// Groups returns the headings in the order of the table.
func Groups() []string {
	var groups []string
	for _, k := range keys {
		if len(groups) == 0 || groups[len(groups)-1] != k.group {
			groups = append(groups, k.group)
		}
	}
	return groups
}

// Flags registers --config and a flag for every scalar key. The flags take any
// text; Load checks it, so that a bad flag is reported together with the rest.
func Flags(fs *pflag.FlagSet) {
	fs.SortFlags = false
	fs.StringP(configFlag, "c", "", "configuration `file` (YAML)")
	must(fs.SetAnnotation(configFlag, GroupAnnotation, []string{"Configuration"}))
	for _, k := range keys {
		if !k.scalar() {
			continue
		}
		f := fs.VarPF(&rawFlag{text: k.def, kind: k.kind()}, k.flag(), "", k.help)
		if k.kind() == "bool" {
			f.NoOptDefVal = "true"
		}
		must(fs.SetAnnotation(f.Name, GroupAnnotation, []string{k.group}))
	}
}

// rawFlag is a pflag.Value that keeps what was written.
type rawFlag struct{ text, kind string }

func (f *rawFlag) String() string { return f.text }
func (f *rawFlag) Type() string   { return f.kind }
func (f *rawFlag) Set(text string) error {
	f.text = text
	return nil
}
