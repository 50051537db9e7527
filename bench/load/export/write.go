package export

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"lbd/bench/load"
)

// Write writes the files into a directory that exists. The results need their
// records. What cannot be written truthfully is left out, and a warning in the
// results says so.
func Write(dir string, res *load.Results) error {
	at := func(name string) string { return filepath.Join(dir, name) }
	err := errors.Join(
		WriteJSON(at("profile_export_genai_perf.json"), summary(res)),
		writeCSV(at("profile_export_genai_perf.csv"), res),
		writeCSV(at("profile_export.csv"), res),
		WriteJSON(at("guidellm.json"), newGuide(res).report()),
		WriteJSON(at("guidellm_0.3.json"), newGuide(res).old()),
	)
	if err == nil {
		err = writeRawIfWhole(at("profile_export.json"), res)
	}
	if err != nil {
		return fmt.Errorf("cannot write results: %w", err)
	}
	return nil
}

func writeRawIfWhole(path string, res *load.Results) error {
	kept := 0
	for i := range res.Records {
		if rec := &res.Records[i]; rec.Kept != nil && measured(rec) {
			kept++
		}
	}
	switch {
	case res.NotKept > 0:
		res.Warnings = append(res.Warnings, fmt.Sprintf("no profile_export.json: the streams of %d requests went beyond the memory for them", res.NotKept))
		return nil
	case kept == 0:
		return nil
	}
	return writeRaw(path, res)
}

// WriteJSON writes a document, indented.
func WriteJSON(path string, document any) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", " ")
	return errors.Join(encoder.Encode(document), w.Flush(), f.Close())
}
