// Package docs has the pages that the command shows parts of.
package docs

import _ "embed"

//go:embed findings.md
var findings string

// Findings is the page of what the controller finds, in Markdown: a table with a line for each code.
func Findings() string { return findings }
