package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func text(s string) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, s)
		return err
	}
}

// names are the files of a directory, temporary ones included.
func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What was there is there until the new file is complete, and nothing else is left.
func TestWholeFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "out.json")
	if err := writeWhole("json", path, text("old, longer")); err != nil {
		t.Fatal(err)
	}
	f, err := beginFile("json", path)
	if err != nil {
		t.Fatal(err)
	}
	err = f.keep(func(w io.Writer) error {
		return errors.Join(text("half")(w), &os.PathError{Op: "write", Path: "/temporary", Err: syscall.ENOSPC})
	})
	if want := `cannot write --json "` + path + `": no space left on device`; err == nil || err.Error() != want {
		t.Errorf("%v; want %s", err, want)
	}
	if content(t, path) != "old, longer" || names(t, dir) != "out.json" {
		t.Errorf("after a failure: %q, %s", content(t, path), names(t, dir))
	}
	if f, err = beginFile("json", path); err != nil {
		t.Fatal(err)
	}
	f.discard()
	f.discard()
	if err := writeWhole("json", path, text("new")); err != nil || content(t, path) != "new" || names(t, dir) != "out.json" {
		t.Errorf("%v: %q, %s", err, content(t, path), names(t, dir))
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o644 {
		t.Errorf("mode %v (%v); want one that others read", info.Mode(), err)
	}
}

// A name that is no plain file is written to; a rename would have replaced /dev/stdout,
// or /dev/null, of a machine whose root says --output /dev/null.
func TestWholeFileReplacesNoOtherThing(t *testing.T) {
	dir := t.TempDir()
	plain, link, pipe := filepath.Join(dir, "plain"), filepath.Join(dir, "link"), filepath.Join(dir, "pipe")
	if err := errors.Join(os.WriteFile(plain, []byte("old, longer"), 0o600), os.Symlink(plain, link), syscall.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	f, err := beginFile("output", link)
	if err != nil {
		t.Fatal(err)
	}
	if content(t, plain) != "old, longer" {
		t.Errorf("begun: %q; want what was there until the new is complete", content(t, plain))
	}
	if err := f.keep(text("new")); err != nil || content(t, plain) != "new" {
		t.Errorf("a link: %v, %q", err, content(t, plain))
	}
	read := make(chan string)
	go func() { b, _ := os.ReadFile(pipe); read <- string(b) }()
	if err := writeWhole("output", pipe, text("through")); err != nil {
		t.Errorf("a pipe: %v", err)
	}
	if got := <-read; got != "through" {
		t.Errorf("a pipe: %q", got)
	}
	for path, mode := range map[string]os.FileMode{link: os.ModeSymlink, pipe: os.ModeNamedPipe} {
		if info, err := os.Lstat(path); err != nil || info.Mode().Type() != mode {
			t.Errorf("%s has become a %v (%v)", path, info.Mode(), err)
		}
	}
	if got := names(t, dir); got != "link pipe plain" {
		t.Errorf("left: %s", got)
	}
}

// What cannot be written is told before the work is done.
func TestWholeFileThatCannotBe(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]string{
		dir:                           `cannot write --html "` + dir + `": is a directory`,
		filepath.Join(dir, "no", "x"): `cannot write --html "` + dir + `/no/x": no such file or directory`,
	} {
		_, err := beginFile("html", path)
		if usage := (usageError{}); !errors.As(err, &usage) || err.Error() != want {
			t.Errorf("%v; want %s", err, want)
		}
	}
	if f, err := beginFile("html", ""); err != nil || f.keep(nil) != nil {
		t.Error("no file is wanted")
	}
	for _, flag := range []string{"--json", "--html"} {
		got := lbd(t, "replay", "--made", "poisson", "--requests", "100000000", flag, dir)
		if got.code != exitUsage || got.stdout != "" || !strings.Contains(got.stderr, "cannot write "+flag) {
			t.Errorf("%+v", got)
		}
	}
	if got := names(t, dir); got != "" {
		t.Errorf("left: %s", got)
	}
}
