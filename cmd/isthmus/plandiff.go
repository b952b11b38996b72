package main

import (
	"fmt"
	"strings"

	"github.com/isthmus-mesh/isthmus/controller/plan"
)

// printDiff shows each object that is written as a unified diff of the fields that are.
func (d *planDocument) printDiff(p *page) error {
	for i := range d.Changes {
		if err := d.Changes[i].printDiff(p); err != nil {
			return err
		}
	}
	return nil
}

func (c *planChange) printDiff(p *page) error {
	before, err := c.lines(func(f *planFields) any { return f.Before })
	if err != nil {
		return err
	}
	after, err := c.lines(func(f *planFields) any { return f.After })
	if err != nil {
		return err
	}
	from, to := c.String(), c.String()
	switch c.Deed {
	case plan.DeedCreate:
		from, before = "/dev/null", nil
	case plan.DeedDelete:
		to, after = "/dev/null", nil
	case plan.DeedRelease:
		to += " (released: it stays as it is)"
	}
	fmt.Fprintln(p.w, p.paint(bold, "--- "+from))
	fmt.Fprintln(p.w, p.paint(bold, "+++ "+to))
	fmt.Fprintf(p.w, "@@ -%s +%s @@ %s\n", span(before), span(after), clean(strings.Join(c.Steps, ", ")))
	for _, l := range diffLines(before, after) {
		colour := map[byte]colour{'-': red, '+': green}[l[0]]
		if _, err := fmt.Fprintln(p.w, p.paint(colour, l)); err != nil {
			return err
		}
	}
	return nil
}

// span is the place of all lines in the head of a hunk.
func span(lines []string) string {
	if len(lines) == 0 {
		return "0,0"
	}
	return fmt.Sprintf("1,%d", len(lines))
}

// lines are the fields of one side, as YAML.
func (c *planChange) lines(side func(*planFields) any) ([]string, error) {
	tree := map[string]any{"apiVersion": c.APIVersion, "kind": c.Kind}
	meta := map[string]any{"name": c.Name}
	if c.Namespace != "" {
		meta["namespace"] = c.Namespace
	}
	tree["metadata"] = meta
	for i := range c.Fields {
		f := &c.Fields[i]
		v := side(f)
		if v == nil {
			continue
		}
		at := tree
		for _, key := range f.path[:len(f.path)-1] {
			next, is := at[key].(map[string]any)
			if !is {
				next = map[string]any{}
				at[key] = next
			}
			at = next
		}
		at[f.path[len(f.path)-1]] = v
	}
	text, err := yamlOf(tree)
	if err != nil {
		return nil, fmt.Errorf("show %s: %w", c, err)
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n"), nil
}

// diffLines are the lines of both, each with a blank, - or + before it: the fewest that tell how one becomes the other.
func diffLines(before, after []string) []string {
	common := make([][]int, len(before)+1) // how many lines the ends from here on share
	for i := range common {
		common[i] = make([]int, len(after)+1)
	}
	for i := len(before) - 1; i >= 0; i-- {
		for j := len(after) - 1; j >= 0; j-- {
			if before[i] == after[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var lines []string
	i, j := 0, 0
	for i < len(before) || j < len(after) {
		switch {
		case i < len(before) && j < len(after) && before[i] == after[j]:
			lines = append(lines, " "+before[i])
			i, j = i+1, j+1
		case j == len(after) || i < len(before) && common[i+1][j] >= common[i][j+1]:
			lines = append(lines, "-"+before[i])
			i++
		default:
			lines = append(lines, "+"+after[j])
			j++
		}
	}
	return lines
}
