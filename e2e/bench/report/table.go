package report

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// NameWidth is how many characters of a name fit.
const NameWidth = 39

// widths of the columns; with a space between two they make 99 columns.
var widths = []int{NameWidth, 11, 11, 6, 11, 5, 5, 4}

var header = []string{"figure", "ours", "peer", "ratio", "low-high", "must", "goal", ""}

// width is that of the table, and of what stands below it.
const width = 99

// Write writes rows as one table, no line of it longer than 100 columns, and under it why figures are missing: a number in place of
// the ratio leads there.
func Write(w io.Writer, rows []Row) error {
	var b strings.Builder
	line(&b, header)
	b.WriteString(strings.Repeat("-", width) + "\n")
	var reasons []string
	for _, r := range rows {
		l := r.Limit
		middle := ratio(r)
		if r.Missing != "" {
			i := slices.Index(reasons, r.Missing)
			if i < 0 {
				i = len(reasons)
				reasons = append(reasons, r.Missing)
			}
			middle = fmt.Sprintf("[%d]", i+1)
		}
		line(&b, []string{r.Name, r.Unit.Text(r.Ours), r.Unit.Text(r.Peer), middle, span(r), limit(l, l.Must), limit(l, l.Goal), r.Verdict()})
	}
	for i, reason := range reasons {
		wrap(&b, fmt.Sprintf("[%d] %s", i+1, reason))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// wrap writes text in lines that are not too long, where its words allow that.
func wrap(b *strings.Builder, text string) {
	column := 0
	for i, word := range strings.Fields(text) {
		n := utf8.RuneCountInString(word)
		switch {
		case i == 0:
		case column+1+n > width:
			b.WriteString("\n    ")
			column = 4
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(word)
		column += n
	}
	b.WriteByte('\n')
}

// line pads the first cell to the right, the others to the left.
func line(b *strings.Builder, cells []string) {
	for i, c := range cells {
		if n := widths[i] - utf8.RuneCountInString(c); n > 0 {
			pad := strings.Repeat(" ", n)
			if i == 0 {
				c += pad
			} else {
				c = pad + c
			}
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(c)
	}
	b.WriteByte('\n')
}

func ratio(r Row) string {
	if math.IsNaN(r.Ratio) {
		return "-"
	}
	return digits(scaled(r, r.Ratio))
}

func span(r Row) string {
	if math.IsNaN(r.Least) || r.Least == r.Most {
		return ""
	}
	return digits(scaled(r, r.Least)) + "-" + digits(scaled(r, r.Most))
}

// scaled is a ratio, or in a row without a peer the figure in its unit.
func scaled(r Row, v float64) float64 {
	if math.IsNaN(r.Peer) && r.Unit.Scale != 0 {
		return v / r.Unit.Scale
	}
	return v
}

func limit(l Limit, v float64) string {
	if v == 0 {
		return ""
	}
	if l.AtMost {
		return "≤" + digits(v)
	}
	return "≥" + digits(v)
}
