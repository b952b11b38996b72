package main

import (
	"regexp"
	"strings"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
	"github.com/isthmus-mesh/isthmus/docs"
)

// link is one of Markdown, to a page beside docs/findings.md.
var link = regexp.MustCompile(`\[([^\]]*)\]\(([^)]*)\)`)

// controllerFinding is a code that only the controller says, as docs/findings.md has it.
func controllerFinding(code string) (describedCheck, bool) {
	for line := range strings.Lines(docs.Findings()) {
		cells := strings.Split(strings.TrimSpace(line), " | ")
		if len(cells) != 5 || strings.TrimPrefix(cells[0], "| ") != code {
			continue
		}
		plain := func(text string) string {
			text = strings.TrimSpace(strings.TrimSuffix(text, " |"))
			return strings.ReplaceAll(link.ReplaceAllString(text, "$1 (docs/$2)"), "`", "")
		}
		d := describedCheck{Code: code, Title: "a finding of the controller, for " + cells[3], Matter: plain(cells[2]), Fix: plain(cells[4]), Answers: []string{}}
		for s := range strings.SplitSeq(cells[1], ", ") {
			d.Severities = append(d.Severities, v1alpha1.Severity(s))
		}
		return d, true
	}
	return describedCheck{}, false
}
