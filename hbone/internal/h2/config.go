package h2

import (
	"cmp"
	"time"
)

// Config sets the limits of a connection. The zero value has good defaults.
type Config struct {
	// StreamWindow is how many bytes a peer may send on a stream ahead of Read, to begin with. Zero means 512 KiB.
	StreamWindow uint32
	// MaxStreamWindow bounds what the window grows to while round trips show that it is the limit. Zero means 64 MiB; at most
	// StreamWindow keeps it as it is.
	MaxStreamWindow uint32
	// MaxGrowth bounds by how much the windows of all streams together may grow. Zero means 256 MiB.
	MaxGrowth int64
	// ConnWindow is the window of all streams together. It is returned as bytes arrive, not as they are read, so it bounds what is on its way.
	// Zero means 64 MiB.
	ConnWindow uint32
	// MaxUnread bounds the bytes of all streams that wait for Read; beyond it the connection's window is not returned. Zero means 512 MiB.
	MaxUnread int64
	// MaxFrameSize is the largest frame taken from the peer, 16 KiB to 16 MiB. Zero means 1 MiB.
	MaxFrameSize uint32
	// MaxSendFrame bounds the DATA frames sent, below what the peer takes. Zero means 64 KiB less a frame header, which fills TLS records.
	MaxSendFrame int
	// MaxHeaderBytes bounds a header list. Zero means 16 KiB for clients and 64 KiB for servers.
	MaxHeaderBytes uint32
	// MaxStreams is how many streams a server serves at once. Zero means 200.
	MaxStreams uint32
	// PingInterval is the time without a frame from the peer before a PING. Zero means 10 s; negative turns PINGs off.
	PingInterval time.Duration
	// PingTimeout is the time a peer has to answer a PING. Zero means 20 s.
	PingTimeout time.Duration
	// SettingsTimeout is the time a peer has to send its SETTINGS. Zero means 10 s.
	SettingsTimeout time.Duration
	// LeftoverTimeout is how long an application may take nothing of what a tunnel that was forwarded to it has left, and ended. Zero means 2 min.
	LeftoverTimeout time.Duration
	// Signals is shared by connections on which streams are opened often. Nil means that each Await makes what it needs.
	Signals *Signals
}

func (c *Config) streamWindow() uint32 { return min(lastStreamID, cmp.Or(c.StreamWindow, 512<<10)) }
func (c *Config) maxStreamWindow() uint32 {
	return min(lastStreamID, cmp.Or(c.MaxStreamWindow, 64<<20))
}
func (c *Config) maxGrowth() int64 { return cmp.Or(c.MaxGrowth, 256<<20) }
func (c *Config) connWindow() uint32 {
	return min(lastStreamID, max(65535, cmp.Or(c.ConnWindow, 64<<20)))
}
func (c *Config) maxUnread() int64 { return cmp.Or(c.MaxUnread, 512<<20) }
func (c *Config) maxFrameSize() uint32 {
	return min(max(16<<10, cmp.Or(c.MaxFrameSize, 1<<20)), 1<<24-1)
}
func (c *Config) maxSendFrame() int  { return max(1, cmp.Or(c.MaxSendFrame, 64<<10-frameHeader)) }
func (c *Config) maxStreams() uint32 { return cmp.Or(c.MaxStreams, 200) }

func (c *Config) maxHeaderBytes(client bool) uint32 {
	if client {
		return cmp.Or(c.MaxHeaderBytes, 16<<10)
	}
	return cmp.Or(c.MaxHeaderBytes, 64<<10)
}

func (c *Config) pingInterval() time.Duration    { return cmp.Or(c.PingInterval, 10*time.Second) }
func (c *Config) pingTimeout() time.Duration     { return cmp.Or(c.PingTimeout, 20*time.Second) }
func (c *Config) leftoverTimeout() time.Duration { return cmp.Or(c.LeftoverTimeout, 2*time.Minute) }
func (c *Config) settingsTimeout() time.Duration { return cmp.Or(c.SettingsTimeout, 10*time.Second) }
