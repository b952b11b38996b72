package policy

// alternative holds when all its conditions do, a clause when any of its alternatives does, and a rule when all its clauses do.
type (
	alternative []cond
	clause      []alternative
)

// rule is one of a policy, as one enforcement point reads it.
type rule struct {
	policy Ref
	index  int // in spec.rules
	// provider of a CUSTOM policy.
	provider string
	clauses  []clause
}

func (r *rule) eval(v *view) tri {
	t := yes
	for i := range r.clauses {
		if t = t.and(r.clauses[i].eval(v)); t == no {
			return no
		}
	}
	return t
}

func (c clause) eval(v *view) tri {
	t := no
	for i := range c {
		if t = t.or(c[i].eval(v)); t == yes {
			return yes
		}
	}
	return t
}

func (a alternative) eval(v *view) tri {
	t := yes
	for i := range a {
		if t = t.and(a[i].eval(v)); t == no {
			return no
		}
	}
	return t
}

// unsure says which conditions of a rule that may hold are not known, and the first field of them.
func (r *rule) unsure(v *view) (on Attributes, field string) {
	for _, c := range r.clauses {
		if c.eval(v) != maybe {
			continue
		}
		for _, a := range c {
			if a.eval(v) != maybe {
				continue
			}
			for i := range a {
				if a[i].eval(v) != maybe {
					continue
				}
				if on |= a[i].attr; field == "" {
					field = a[i].field
				}
			}
		}
	}
	return on, field
}
