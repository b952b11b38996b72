package load

import (
	"context"
	"fmt"
	"io"
	"net"
	"time"
)

// work is what a tunnel's goroutine does until the client stops.
func (c *Client) work(ctx context.Context, k Kind, nc net.Conn, shard int, flow int64) error {
	switch k {
	case Up:
		return c.up(ctx, nc, shard, flow)
	case Down:
		return c.down(nc, shard)
	default:
		return c.echo(nc, shard)
	}
}

func (c *Client) up(ctx context.Context, nc net.Conn, shard int, flow int64) error {
	out := &c.shard[shard].out
	buf := make([]byte, writeSize)
	for sent := int64(0); !c.stop.Load(); {
		n, err := nc.Write(buf)
		out.Add(int64(n))
		if err != nil {
			return err
		}
		if sent += int64(n); flow > 0 && sent >= flow {
			c.end(nc)
			if nc, err = c.begin(ctx, Up); err != nil {
				return err
			}
			sent = 0
		}
	}
	c.end(nc)
	return nil
}

func (c *Client) down(nc net.Conn, shard int) error {
	defer c.end(nc)
	in := &c.shard[shard].in
	buf := make([]byte, readSize)
	for !c.stop.Load() {
		n, err := nc.Read(buf)
		in.Add(int64(n))
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *Client) echo(nc net.Conn, shard int) error {
	defer c.end(nc)
	sh := &c.shard[shard]
	buf := make([]byte, message)
	for !c.stop.Load() {
		begin := time.Now()
		if _, err := nc.Write(buf); err != nil {
			return err
		}
		if _, err := io.ReadFull(nc, buf); err != nil {
			return err
		}
		sh.took.Add(time.Since(begin))
		sh.ops.Add(1)
	}
	return nil
}

func (c *Client) opens(ctx context.Context, shard int) error {
	sh := &c.shard[shard]
	for !c.stop.Load() {
		begin := time.Now()
		nc, err := c.begin(ctx, Echo)
		if err != nil {
			return err
		}
		c.end(nc)
		sh.took.Add(time.Since(begin))
		sh.ops.Add(1)
	}
	return nil
}

// openIdle opens tunnels and sends nothing on them.
func (c *Client) openIdle(ctx context.Context, n int) error {
	if cap(c.idle) < n {
		c.idle = make([]net.Conn, 0, max(n, 1<<17)) // by the first load, before anybody weighs this process
	}
	c.idle = c.idle[:n]
	return parallel(n, func(i int) error {
		nc, err := c.opener.Open(ctx)
		if err != nil {
			return fmt.Errorf("open idle tunnel %d: %w", i, err)
		}
		c.idle[i] = nc
		c.active.Add(1)
		return nil
	})
}
