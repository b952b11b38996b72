package identity

import "time"

// SetClock gives c another clock on the wall.
func (c *Config) SetClock(now func() time.Time) { c.clock = now }
