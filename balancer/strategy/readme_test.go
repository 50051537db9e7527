package strategy

import (
	"os"
	"strings"
	"testing"
)

// The table of README.md is the table of the code: same strategies, same order, same words, and no cell left empty.
func TestReadmeHasEveryStrategy(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := readmeRows(string(text))
	if len(rows) != len(Table) {
		t.Fatalf("%d rows, %d strategies", len(rows), len(Table))
	}
	for i, e := range Table {
		row := rows[i]
		if len(row) != 7 {
			t.Errorf("%s: %d cells, want 7: %q", e.Name, len(row), row)
			continue
		}
		for column, want := range []string{"`" + e.Name + "`", e.Summary, e.Inputs} {
			if row[column] != want {
				t.Errorf("%s: cell %d is %q, want %q", e.Name, column, row[column], want)
			}
		}
		for column, cell := range row {
			if cell == "" {
				t.Errorf("%s: cell %d is empty", e.Name, column)
			}
		}
	}
}

// readmeRows are the cells of the first table, without its head.
func readmeRows(text string) (rows [][]string) {
	_, text, _ = strings.Cut(text, "\n|---")
	_, text, _ = strings.Cut(text, "\n")
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			break
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	return rows
}
