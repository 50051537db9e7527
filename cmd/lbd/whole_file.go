package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// wholeFile is a file of results that appears when it is complete. It is begun before
// the work whose results it gets: a path that cannot be written is known before, not
// after, an hour of load.
type wholeFile struct {
	flag, path string
	file       *os.File // nil when none is wanted, or no longer
	temporary  bool
}

// beginFile begins the file that a flag names; an empty path is no file. What is there
// and no plain file, such as a pipe, /dev/stdout or a link, is written to and not
// replaced: for root a rename would put a file in the place of the device.
func beginFile(flag, path string) (f *wholeFile, err error) {
	f = &wholeFile{flag: flag, path: path}
	if path == "" {
		return f, nil
	}
	// Without an error of Lstat there is something of that name.
	if info, lstat := os.Lstat(path); lstat == nil && !info.Mode().IsRegular() {
		f.file, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644)
	} else {
		f.temporary = true
		f.file, err = os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	}
	if err != nil {
		return nil, usageError{f.failed(err)}
	}
	return f, nil
}

// keep writes the file. Until then what was there before is whole.
func (f *wholeFile) keep(write func(io.Writer) error) error {
	if f.file == nil {
		return nil
	}
	defer f.discard()
	if f.temporary {
		if err := errors.Join(write(f.file), f.file.Chmod(0o644), f.file.Close()); err != nil {
			return f.failed(err)
		}
		if err := os.Rename(f.file.Name(), f.path); err != nil {
			return f.failed(err)
		}
		f.file = nil
		return nil
	}
	if info, err := f.file.Stat(); err == nil && info.Mode().IsRegular() { // where the link leads
		if err := f.file.Truncate(0); err != nil {
			return f.failed(err)
		}
	}
	if err := errors.Join(write(f.file), f.file.Close()); err != nil {
		return f.failed(err)
	}
	f.file = nil
	return nil
}

// discard removes what keep has not made final.
func (f *wholeFile) discard() {
	if f == nil || f.file == nil {
		return
	}
	f.file.Close()
	if f.temporary {
		os.Remove(f.file.Name())
	}
	f.file = nil
}

// failed names the path that was given, and not the temporary one.
func (f *wholeFile) failed(err error) error {
	if path := new(fs.PathError); errors.As(err, &path) {
		err = path.Err
	}
	return fmt.Errorf("cannot write --%s %q: %w", f.flag, f.path, err)
}

// writeWhole begins a file and keeps it.
func writeWhole(flag, path string, write func(io.Writer) error) error {
	f, err := beginFile(flag, path)
	if err != nil {
		return err
	}
	return f.keep(write)
}
