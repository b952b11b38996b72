package explain

import (
	"html/template"
	"io"
	"strings"

	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// page is a matrix as one file that needs nothing else: no script, no other file, no network.
const page = `<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Who may call what</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem; color: #1c1c1c; background: #fff }
table { border-collapse: collapse }
th, td { border: 1px solid #c9c9c9; padding: .35rem .6rem; text-align: left; vertical-align: top }
thead th { position: sticky; top: 0; background: #f2f2f2 }
tbody th { font-weight: 600; background: #f8f8f8; white-space: nowrap }
td a { color: inherit }
td small { display: block; color: #4a4a4a; max-width: 24rem }
.allow { background: #dff3e0 } .deny { background: #fbdcdc } .depends { background: #fdf1cf } .none { color: #767676 } .unrouted { opacity: .6 }
section { margin-top: 1.5rem } h3 { margin: 0 0 .3rem; padding: .2rem .4rem }
pre { overflow-x: auto; background: #f8f8f8; border: 1px solid #dddddd; padding: .8rem; margin: 0; font-size: 13px }
@media (prefers-color-scheme: dark) {
body { color: #e8e8e8; background: #161616 } thead th, tbody th, pre { background: #222222 } th, td, pre { border-color: #444444 } td small { color: #bbbbbb }
.allow { background: #17381b } .deny { background: #4a1a1a } .depends { background: #453709 }
}
</style>
</head>
<body>
<h1>Who may call what</h1>
{{with .Request}}<p>Requests: {{.}}.</p>
{{end}}<p>{{.Allow}} allowed, {{.Deny}} denied, {{.Depends}} depend on more than is said.{{if .Unrouted}} What is pale is what would be: no route of that gateway leads there.{{end}}</p>
<table>
<thead><tr><th scope="col">to</th>{{range .Sources}}<th scope="col">{{.}}</th>{{end}}</tr></thead>
<tbody>
{{range .Rows}}<tr><th scope="row">{{.To}}</th>{{range .Cells}}{{if .ID}}<td class="{{.Verdict}}{{if not .Routed}} unrouted{{end}}"><a href="#{{.ID}}">{{.Verdict}}</a><small>{{.Path}}</small><small>{{.Why}}</small></td>{{else}}<td class="none">no route</td>{{end}}{{end}}</tr>
{{end}}</tbody>
</table>
{{range .Rows}}{{range .Cells}}{{if .ID}}<section id="{{.ID}}"><h3 class="{{.Verdict}}">{{.Title}}</h3>
<pre>{{.Drawing}}</pre></section>
{{end}}{{end}}{{end}}{{range .Notes}}<p>{{.}}</p>
{{end}}</body>
</html>
`

type htmlCell struct {
	ID, Verdict, Path, Why, Title, Drawing string
	Routed                                 bool
}

type htmlRow struct {
	To    string
	Cells []htmlCell
}

// HTML writes a matrix as one file. request says in words what is known of the requests; notes are written below.
func HTML(out io.Writer, m *Matrix, request string, notes []string) error {
	t, err := template.New("matrix").Parse(page)
	if err != nil {
		return err
	}
	data := struct {
		Request              string
		Sources, Notes       []string
		Allow, Deny, Depends int
		Unrouted             bool
		Rows                 []htmlRow
	}{Request: request, Sources: m.Sources, Notes: notes}
	at := map[[2]string]int{}
	for i := range m.Cells {
		at[[2]string{m.Cells[i].From, m.Cells[i].To}] = i + 1
	}
	for _, to := range m.Targets {
		row := htmlRow{To: to}
		for _, from := range m.Sources {
			i := at[[2]string{from, to}]
			if i == 0 {
				row.Cells = append(row.Cells, htmlCell{})
				continue
			}
			c := &m.Cells[i-1]
			path, why := c.Why()
			cell := htmlCell{
				ID: strings.NewReplacer(" ", "-", "/", "-", ":", "-").Replace(from + "--" + to), Verdict: c.Answer.Verdict.String(), Path: path, Why: why,
				Title: c.Answer.Title(), Routed: c.Routed,
			}
			var drawing strings.Builder
			if err := Draw(&drawing, &c.Answer, 0, nil); err != nil {
				return err
			}
			cell.Drawing = drawing.String()
			row.Cells = append(row.Cells, cell)
			data.Unrouted = data.Unrouted || !c.Routed
			switch c.Answer.Verdict {
			case policy.Allow:
				data.Allow++
			case policy.Deny:
				data.Deny++
			case policy.Depends:
				data.Depends++
			}
		}
		data.Rows = append(data.Rows, row)
	}
	return t.Execute(out, data)
}
