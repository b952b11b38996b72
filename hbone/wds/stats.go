package wds

import "time"

// Stats is what a Client has at one moment.
type Stats struct {
	Online      bool      // istiod has answered on the connection there is
	Answered    time.Time // when istiod last sent anything; what is held is from then, at the latest. Zero: never
	FromFile    time.Time // when the SnapshotFile was written that still stands for istiod's answer; zero: it does not
	Services    int
	Workloads   int
	Policies    int
	Names       int    // asked for
	Unreadable  int    // resources that could not be read and of which no older value is held
	Refused     uint64 // responses with something that could not be read or that was too much
	Lost        uint64 // connections to istiod that ended or could not be made
	TooLarge    uint64 // of them those that a message of more than Config.MaxMessage ended
	Narrowed    bool   // as all there is is too large, Wildcard asks for what is dialled for now
	LastRefusal error  // nil: none
	LastError   error  // of a connection; nil: none
}

func (s *Stats) answered(now time.Time) { s.Answered, s.FromFile = now, time.Time{} }

// Stale is for how long nothing has been heard of istiod: zero while it is connected, for it sends what changes.
func (s *Stats) Stale(now time.Time) time.Duration {
	switch {
	case s.Online:
		return 0
	case !s.FromFile.IsZero():
		return now.Sub(s.FromFile)
	case s.Answered.IsZero():
		return 0
	}
	return now.Sub(s.Answered)
}

// Stats says what the Client has now.
func (c *Client) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, v := c.stats, c.now.Load()
	s.Online, s.Policies, s.Names = v.online, len(v.policies), len(c.names)
	s.Services, s.Workloads = v.table.Len()
	s.Narrowed = c.narrowed.Load()
	s.Unreadable = len(c.bad) + len(v.badPols)
	return s
}
