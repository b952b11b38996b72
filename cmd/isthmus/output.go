package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"sigs.k8s.io/yaml"
)

// The values of -o. All commands take the first two.
const (
	outputText = "text"
	outputJSON = "json"
	outputYAML = "yaml"
	outputDiff = "diff"
)

// moreOutputs is the annotation of a command that takes more of them, with commas.
const moreOutputs = "isthmus.dev/outputs"

// outputs are the values of -o that a command takes.
func outputs(cmd *cobra.Command) []string {
	all := []string{outputText, outputJSON}
	if more := cmd.Annotations[moreOutputs]; more != "" {
		all = append(all, strings.Split(more, ",")...)
	}
	return all
}

// header opens every JSON document. Fields are added within a version; renaming or removing one makes a new version.
type header struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
}

func newHeader(kind string) header { return header{APIVersion: "cli.isthmus.dev/v1alpha1", Kind: kind} }

// notes tells on standard error what was not looked at. With -o json they are in the document, or are no part of it.
func (a *app) notes(list []string) {
	if a.output == outputJSON {
		return
	}
	for _, n := range list {
		fmt.Fprintln(a.stderr, "note:", oneLine(n))
	}
}

// writeJSON writes one document to standard output.
func (a *app) writeJSON(v any) error { return encode(a.stdout, v) }

// writeYAML writes one document to standard output, as JSON has it.
func (a *app) writeYAML(v any) error {
	text, err := yamlOf(v)
	if err != nil {
		return err
	}
	_, err = cleaner{w: a.stdout}.Write(text)
	return err
}

// yamlOf is a document as YAML that reads the same when a cleaner has written it. Marks that turn the direction of text are plain letters to YAML, which has
// no escapes outside of quotes, and some controls it does not take at all: a document with one is written as JSON, which is YAML too, and has all of its texts
// in quotes.
func yamlOf(v any) ([]byte, error) {
	text, err := yaml.Marshal(v)
	if err == nil && !bytes.ContainsFunc(text, func(r rune) bool { return r != utf8.RuneError && harmful(r) }) {
		return text, nil
	}
	var b bytes.Buffer
	err = encode(&b, v)
	return b.Bytes(), err
}

func encode(w io.Writer, v any) error {
	e := json.NewEncoder(cleaner{w: w})
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// terminal is w as a terminal; its width is 0 when it is none.
func terminal(w io.Writer) (width int) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return 0
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width < 40 {
		return 80
	}
	return width
}

// colour is an ANSI code.
type colour string

const (
	plain  colour = ""
	bold   colour = "1"
	red    colour = "31"
	green  colour = "32"
	yellow colour = "33"
	grey   colour = "90"
)

// page is text on its way to a stream: it knows whether colours are wanted and how wide a line may be.
type page struct {
	w       io.Writer
	width   int // 0: no limit
	colours bool
}

func (a *app) page(w io.Writer) *page {
	width := terminal(w)
	colours := width > 0 && a.getenv("NO_COLOR") == "" && !a.dumb()
	return &page{w: cleaner{w, colours}, width: width, colours: colours}
}

// dumb says whether terminals take no commands.
func (a *app) dumb() bool { return a.getenv("TERM") == "dumb" }

func (p *page) paint(c colour, text string) string {
	text = clean(text)
	if !p.colours || c == plain || text == "" {
		return text
	}
	return "\x1b[" + string(c) + "m" + text + "\x1b[0m"
}

// cell is one field of a table.
type cell struct {
	text   string
	colour colour
}

func cells(texts ...string) []cell {
	row := make([]cell, len(texts))
	for i, t := range texts {
		row[i].text = t
	}
	return row
}

// colon writes what is known of what, in a line, or below it where a terminal is too narrow for that.
func (p *page) colon(what, known string) {
	if n := utf8.RuneCountInString(colourCode.ReplaceAllString(what+": "+known, "")); p.width == 0 || n <= p.width {
		fmt.Fprintf(p.w, "%s: %s\n", what, known)
		return
	}
	fmt.Fprintf(p.w, "%s\n  %s\n", strings.Join(wrap(what+":", p.width), "\n"), strings.Join(wrap(known, p.width-2), "\n  "))
}

var colourCode = regexp.MustCompile("\x1b\\[[0-9]*m")

// lastRoom is how wide the last column of a table is at least.
const lastRoom = 24

// table writes rows below titles, columns aligned. On a terminal that is too narrow the last column goes on in further lines; where there is no room for that
// either each row is a list. Only a word that is wider than the terminal is left for it to break, so that it can be copied.
func (p *page) table(titles []string, rows [][]cell) error {
	widths := make([]int, len(titles))
	head := make([]cell, len(titles))
	for i, t := range titles {
		head[i] = cell{t, bold}
	}
	for _, row := range append([][]cell{head}, rows...) {
		for i, c := range row {
			row[i].text = clean(c.text)
			c = row[i]
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	indent := 0
	for _, w := range widths[:len(widths)-1] {
		indent += w + 2
	}
	room, label := 0, 0
	for _, t := range titles[1:] {
		label = max(label, utf8.RuneCountInString(t))
	}
	if p.width > 0 {
		room = p.width - indent
		if word := longestLast(rows); room < lastRoom || word > room && word <= p.width-label-3 {
			return p.list(titles, rows, label)
		}
	}
	var b strings.Builder
	for _, row := range append([][]cell{head}, rows...) {
		last := len(row) - 1
		for i, c := range row[:last] {
			b.WriteString(p.paint(c.colour, c.text) + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.text)+2))
		}
		for i, line := range wrap(row[last].text, room) {
			if i > 0 {
				b.WriteString(strings.Repeat(" ", indent))
			}
			b.WriteString(p.paint(row[last].colour, line) + "\n")
		}
	}
	_, err := io.WriteString(p.w, trimLines(b.String()))
	return err
}

// longestLast is the longest word of a last column.
func longestLast(rows [][]cell) (n int) {
	for _, row := range rows {
		for word := range strings.FieldsSeq(row[len(row)-1].text) {
			n = max(n, utf8.RuneCountInString(word))
		}
	}
	return n
}

// list writes each row as lines of its own, the first cell above the others, which stand behind their titles of at most label columns.
func (p *page) list(titles []string, rows [][]cell, label int) error {
	var b strings.Builder
	for i, row := range rows {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(titles[0] + " " + p.paint(bold, row[0].text) + "\n")
		for j, c := range row[1:] {
			if c.text == "" {
				continue
			}
			head := titles[j+1]
			for _, line := range wrap(c.text, max(lastRoom, p.width-label-3)) {
				fmt.Fprintf(&b, "  %-*s %s\n", label, head, p.paint(c.colour, line))
				head = ""
			}
		}
	}
	_, err := io.WriteString(p.w, b.String())
	return err
}

// trimLines takes away blanks before line ends, which empty cells leave.
func trimLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimRight(l, " ")
	}
	return strings.Join(lines, "\n")
}

// wrapFix is wrap, but for commands, which stay whole, in lines of their own: those that follow a colon, up to a semicolon or the end.
func wrapFix(text string, width int) (lines []string) {
	for rest := text; rest != ""; {
		at := commandIn.FindStringIndex(rest)
		if at == nil || width <= 0 {
			return append(lines, wrap(rest, width)...)
		}
		begin, end := at[0]+len(": "), len(rest)
		if semicolon := strings.Index(rest[begin:], "; "); semicolon >= 0 {
			end = begin + semicolon + 1
		}
		lines = append(lines, wrap(strings.TrimSpace(rest[:begin]), width)...)
		lines = append(lines, rest[begin:end])
		rest = strings.TrimSpace(rest[end:])
	}
	return lines
}

// commandIn is where a command begins in a text.
var commandIn = regexp.MustCompile(`: (kubectl|istioctl|isthmus) [a-z]`)

// wrap breaks text at blanks into lines of at most width runes; words longer than that stay whole. Width 0 does not break.
func wrap(text string, width int) []string {
	if width <= 0 || utf8.RuneCountInString(text) <= width {
		return []string{text}
	}
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	return append(lines, line)
}
