package rules

import (
	"strings"
)

// notes are the annotations of an object that begin with one of some prefixes.
type notes struct {
	*fields
	prefix string
}

// notes reads those of an object. Those without the prefixes are of others.
func (d *doc) notes(object map[string]any, prefixes ...string) notes {
	meta, _ := object["metadata"].(map[string]any)
	all, _ := meta["annotations"].(map[string]any)
	own := map[string]any{}
	for key, v := range all {
		for _, p := range prefixes {
			if strings.HasPrefix(key, p) {
				own[key] = v
			}
		}
	}
	n := notes{fields: d.open("metadata.annotations", own)}
	if len(prefixes) > 0 {
		n.prefix = prefixes[0]
	}
	return n
}

func (n notes) get(name string) string { return n.str(n.prefix + name) }

func (n notes) there(name string) bool { return n.has(n.prefix + name) }

func (n notes) field(name string) string { return n.at(n.prefix + name) }

func (n notes) leave(names ...string) {
	for _, name := range names {
		n.skip(n.prefix + name)
	}
}

func (n notes) doubt(name string) { n.unsure(n.prefix + name) }

// words are the parts of an annotation between commas.
func (n notes) words(name string) []string { return commas(n.get(name)) }

// yes says whether an annotation is true; another word than true and false is unknown.
func (n notes) yes(name string) bool {
	switch word := strings.ToLower(strings.TrimSpace(n.get(name))); word {
	case "true", "on", "yes", "1":
		return true
	case "", "false", "off", "no", "0":
		return false
	}
	n.doubt(name)
	return true
}

func commas(s string) []string {
	var list []string
	for word := range strings.SplitSeq(s, ",") {
		if word = strings.TrimSpace(word); word != "" {
			list = append(list, word)
		}
	}
	return list
}

// serviceOfURL is the Service that a URL names by a name inside the cluster. Zero: it names none.
func serviceOfURL(url string) Ref {
	_, rest, ok := strings.Cut(url, "://")
	if !ok {
		return Ref{}
	}
	host, _, _ := strings.Cut(rest, "/")
	if i := strings.LastIndex(host, "@"); i >= 0 {
		host = host[i+1:]
	}
	host, _, _ = strings.Cut(host, ":")
	parts := strings.Split(host, ".")
	if len(parts) < 3 || parts[2] != "svc" {
		return Ref{}
	}
	return serviceOf(host, "")
}
