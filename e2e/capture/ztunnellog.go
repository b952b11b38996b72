package capture

import (
	"encoding/json"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// ztunnelEntry is a line of ztunnel's access log as JSON. It writes "connection opened" (level debug) before it decides, "connection complete"
// at the end, and "connection failed" for what it turned away early. Identities are there with mTLS only.
type ztunnelEntry struct {
	Time      time.Time `json:"time"`
	Scope     string    `json:"scope"`
	Message   string    `json:"message"`
	Source    string    `json:"src.addr"`
	SourceID  string    `json:"src.identity"`
	Dest      string    `json:"dst.addr"`
	Authority string    `json:"dst.hbone_addr"` // with HBONE only
	Workload  string    `json:"dst.workload"`
	Namespace string    `json:"dst.namespace"`
	DestID    string    `json:"dst.identity"`
	Direction string    `json:"direction"`
	BytesSent int64     `json:"bytes_sent"`
	BytesRecv int64     `json:"bytes_recv"`
	Error     string    `json:"error"`
}

var (
	// ztunnelDenied is how ztunnel says which policy denied, if it was one.
	ztunnelDenied = regexp.MustCompile(`policy rejection: (?:explicitly denied by: (\S+))?`)
	// ztunnelEnded is how it says that a policy came to deny an open connection: not which.
	ztunnelEnded  = "closed due to policy change"
	ztunnelStatus = regexp.MustCompile(`http status: (\d{3})`)
)

// readZtunnel reads a line; ok is false for what is not of the access log.
func readZtunnel(line string) (z ztunnelEntry, ok bool) {
	ok = json.Unmarshal([]byte(line), &z) == nil && z.Scope == "access" && (z.Direction == Inbound || z.Direction == Outbound)
	return z, ok
}

// key joins the lines of a connection. Tunnels of one carrying connection may share it: they are taken in their order.
func (z *ztunnelEntry) key() string {
	return strings.Join([]string{z.Direction, z.Source, z.Dest, z.Authority}, " ")
}

// entry is what z says in our words. What it does not say stays zero: before its end a connection is undecided.
func (z *ztunnelEntry) entry() Entry {
	e := Entry{
		Time: z.Time, Direction: z.Direction, Transport: Plaintext, Source: z.Source, SourceIdentity: z.SourceID, Destination: z.Dest,
		Authority: z.Authority, Error: z.Error,
	}
	if z.Authority != "" {
		e.Transport, e.Destination = HBONE, z.Authority
	}
	if z.Direction == Outbound {
		z.outbound(&e)
	} else if z.Message != "connection opened" {
		z.inbound(&e)
	}
	return e
}

func (z *ztunnelEntry) outbound(e *Entry) {
	e.PeerIdentity = z.DestID
	if m := ztunnelStatus.FindStringSubmatch(z.Error); m != nil {
		e.Status, _ = strconv.Atoi(m[1]) // three digits
	}
	if e.Transport == Plaintext {
		return
	}
	e.HopName, e.HopAddr = z.Namespace+"/"+z.Workload, z.Dest
	hop, err1 := netip.ParseAddrPort(z.Dest)
	target, err2 := netip.ParseAddrPort(z.Authority)
	if err1 == nil && err2 == nil && hop.Addr() == target.Addr() {
		e.Hop = "workload" // elsewhere a waypoint or a gateway: the log does not say which
	}
}

func (z *ztunnelEntry) inbound(e *Entry) {
	allowed := z.Error == ""
	if m := ztunnelDenied.FindStringSubmatch(z.Error); m != nil {
		e.Allowed, e.Policy, e.Reason, e.Error = &allowed, m[1], []string{z.Error}, ""
	} else if strings.Contains(z.Error, ztunnelEnded) {
		e.Allowed, e.Ended, e.Reason, e.Error = &allowed, true, []string{z.Error}, ""
	} else if allowed {
		e.Allowed = &allowed
	}
	if e.Transport != HBONE || e.Allowed == nil {
		return
	}
	e.Status = 401
	if allowed {
		e.Status = 200
	}
}

// ztunnelEntries puts the lines of a connection together.
type ztunnelEntries struct {
	opened map[string][]int // places in the list, by key
}

// take adds z to list, or makes what list has of its connection complete.
func (o *ztunnelEntries) take(list []Entry, z ztunnelEntry) []Entry {
	if o.opened == nil {
		o.opened = map[string][]int{}
	}
	k := z.key()
	places := o.opened[k]
	switch {
	case z.Message == "connection opened":
		o.opened[k] = append(places, len(list))
	case len(places) > 0:
		o.opened[k] = places[1:]
		began := list[places[0]].Time
		list[places[0]] = z.entry()
		list[places[0]].Time = began
		return list
	}
	return append(list, z.entry())
}
