package authz

// Holds reports whether m matches a connection: every field that is set does. One without any field matches none.
func (m *Match) Holds(c *Conn) bool {
	w := c.who()
	return !m.empty() && m.holds(c, &w)
}

// Holds reports whether s is what m asks for.
func (m StringMatch) Holds(s string) bool { return m.holds(s) }
