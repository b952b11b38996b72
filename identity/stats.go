package identity

import "time"

// Stats says how a Source fares.
type Stats struct {
	Generation  uint64    // counts new certificates and roots, from 1
	Expires     time.Time // of the SVID held
	LastRenewal time.Time
	NextRenewal time.Time // when the authority will be asked again, unless it tells of something sooner
	Failures    uint64    // since the start
	LastError   error     // nil when the last attempt succeeded
	Trust       TrustStats
}

// TrustStats says how the files of a Trust fare.
type TrustStats struct {
	Domains    int       // that somebody vouches for
	Lists      int       // of revoked certificates
	Revoked    int       // certificates on them
	NextUpdate time.Time // when the first list is to be renewed; zero when none says
	Failures   uint64    // things that were wrong, since the start
	LastError  error     // what is wrong now; nil when nothing is
}

// Stats says how the Source fares.
func (s *Source) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}
