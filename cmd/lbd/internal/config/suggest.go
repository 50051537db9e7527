package config

import (
	"fmt"
	"strings"
)

// Nearest returns the candidate that name was probably meant to be, or "". Case
// and the choice of dash or underscore do not count as a difference.
func Nearest(name string, candidates []string) string {
	best, least := "", len(name)+1
	for _, c := range candidates {
		if d := distance(fold(name), fold(c)); d < least && d <= max(2, len(c)/3) {
			best, least = c, d
		}
	}
	return best
}

// didYouMean is the tail of an "unknown ..." message.
func didYouMean(name string, candidates []string) string {
	if near := Nearest(name, candidates); near != "" {
		return fmt.Sprintf("; did you mean %s?", near)
	}
	return ""
}

func fold(s string) string {
	if len(s) > 64 { // no key is that long, and distance is quadratic
		s = s[:64]
	}
	return strings.ReplaceAll(strings.ToLower(s), "-", "_")
}

// distance is the Levenshtein distance in bytes.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
