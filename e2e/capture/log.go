package capture

import (
	"encoding/json"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/hbone/authz"
)

// Values of Entry.Direction and Entry.Transport.
const (
	Outbound  = "outbound"
	Inbound   = "inbound"
	HBONE     = "hbone"
	Plaintext = "plaintext"
)

// Entry is a line of the access log: one connection, when it has been decided. ztunnel's says less, and some of it only when the connection
// has ended; what it does not say is zero.
type Entry struct {
	Time           time.Time `json:"time"`
	Direction      string    `json:"direction"`
	Transport      string    `json:"transport"`
	Source         string    `json:"source"`
	SourceIdentity string    `json:"sourceIdentity,omitempty"` // inbound: what the peer showed; outbound: our own
	Destination    string    `json:"destination"`
	PeerIdentity   string    `json:"peerIdentity,omitempty"` // outbound: what the hop showed
	Hop            string    `json:"hop,omitempty"`          // outbound: its kind
	HopName        string    `json:"hopName,omitempty"`
	HopAddr        string    `json:"hopAddr,omitempty"`
	Authority      string    `json:"authority,omitempty"`
	Reason         []string  `json:"reason,omitempty"`
	Allowed        *bool     `json:"allowed,omitempty"` // inbound
	Policy         string    `json:"policy,omitempty"`  // inbound: which decided
	Status         int       `json:"status,omitempty"`  // of the CONNECT
	Ended          bool      `json:"ended,omitempty"`   // an open tunnel that a policy came to deny
	Error          string    `json:"error,omitempty"`
}

// IsAllowed reports whether a decision was logged, and let the connection in.
func (e *Entry) IsAllowed() bool { return e.Allowed != nil && *e.Allowed }

func (e *Entry) decided(d authz.Decision) {
	e.Allowed, e.Policy, e.Reason = &d.Allow, d.Policy, []string{d.Reason}
}

type accessLog struct {
	mu  sync.Mutex
	out io.Writer
}

func (l *accessLog) write(e Entry) {
	e.Time = time.Now().UTC()
	text, err := json.Marshal(e)
	if err != nil {
		return // an Entry always marshals
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = l.out.Write(append(text, '\n')) // a log that is gone stops nobody
}

// Entries reads the lines of an access log that are entries, ours or ztunnel's; others are skipped.
func Entries(log string) []Entry {
	var list []Entry
	var z ztunnelEntries
	for line := range strings.Lines(log) {
		if !strings.HasPrefix(line, "{") {
			continue
		}
		var e Entry
		if theirs, ok := readZtunnel(line); ok {
			list = z.take(list, theirs)
		} else if json.Unmarshal([]byte(line), &e) == nil && e.Direction != "" && e.Transport != "" {
			list = append(list, e)
		}
	}
	return list
}
