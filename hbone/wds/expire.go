package wds

// epochs is how many looks for what is unused there are in Config.UnusedFor.
const epochs = 4

// expire gives up what was not used for epochs looks: it is unsubscribed and forgotten.
func (c *Client) expire() {
	h := &c.held
	since := c.epoch.Add(1) - epochs
	clear(h.dropped) // what istiod sent before it knew has come by now
	if since < 0 {
		return
	}
	used := map[string]bool{}
	c.ways.sweep(since, used)
	c.all.sweep(since, used)
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, a := range c.names {
		if a.pinned || a.epoch >= since {
			used[name] = true
		}
	}
	for name := range c.names {
		if !used[name] {
			delete(c.names, name)
			c.again = append(c.again, name)
		}
	}
	for name := range h.versions {
		if !c.unused(name, used) {
			continue
		}
		h.dropped[name] = true
		h.lets(name)
		c.again = append(c.again, name)
	}
	if len(c.again) > 0 {
		table := h.table.Snapshot()
		c.publish(func(v *view) { v.table = table })
	}
}

// unused reports whether none of the names of what is held is used.
func (c *Client) unused(name string, used map[string]bool) bool {
	if used[name] {
		return false
	}
	for _, alias := range c.held.table.Names(name) { // of a workload its Services, too
		if used[alias] {
			return false
		}
	}
	return true
}
