package wds

import (
	"slices"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/route"
)

// refreshMost is how many workloads a refresh asks for in a second, about.
const refreshMost = 2000

// refresh asks anew for the Services whose last answer is too old; it reports whether there are any. A few each time, the oldest first, so that
// istiod is not asked for everything at one moment.
func (c *Client) refresh(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.now.Load()
	if !v.online {
		return false
	}
	var due []string
	for name, a := range c.names {
		if !a.told.IsZero() && a.absent.IsZero() && !a.anew && now.Sub(a.told) >= c.cfg.refresh() && v.table.Behind(name) >= 0 {
			due = append(due, name)
		}
	}
	slices.SortFunc(due, func(a, b string) int { return c.names[a].told.Compare(c.names[b].told) })
	most := max(1, int(refreshMost*min(time.Second, c.cfg.refresh()).Seconds()))
	for _, name := range due {
		c.renew(name)
		if most -= 1 + v.table.Behind(name); most <= 0 {
			break
		}
	}
	return len(due) > 0
}

// renew asks for a name anew; mu is held. Istiod answers again only for what was unsubscribed before.
func (c *Client) renew(name string) {
	c.names[name].anew = true
	c.again = append(c.again, name)
	c.pending = append(c.pending, name)
}

// lostPods asks anew for Services that have lost a pod, as another may have come in its place: at once for one that has none left, whose dials wait for
// the answer, else with the next refresh. mu is held.
func (c *Client) lostPods(table *route.Table, services map[string]bool) {
	for key := range services {
		if table.Empty(key) && c.names[key] == nil { // it came by another name
			c.names[key] = &asked{epoch: c.epoch.Load()}
		}
		for _, name := range append(table.Names(key), key) {
			switch a := c.names[name]; {
			case a == nil || a.anew:
			case table.Empty(key):
				a.absent = time.Time{}
				c.renew(name)
			default:
				a.told = time.Unix(0, 0)
			}
		}
	}
	c.stir()
}
