package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// How often a watch of statuses reads them. While that fails it pauses longer each time.
const (
	statusWatchPause = time.Second
	statusWatchMost  = 30 * time.Second
)

// statusWatch shows what read gets, and again whenever that changes, until ctx ends, or the AmbientEdge that was named is gone. Where the first read fails,
// the command does. Later on it goes on, and tells on standard error once that it cannot read, and when it can again.
func (a *app) statusWatch(ctx context.Context, one bool, read func(context.Context) (*statusDocument, string, error)) error {
	var shown []byte // its edges
	notes := 0       // how many there were
	pause := statusWatchPause
	for {
		doc, where, err := read(ctx)
		select {
		case <-ctx.Done():
			return nil // that is how it ends
		default:
		}
		if f, is := errors.AsType[*failure](err); err != nil && (shown == nil || is && f.gone) {
			return err
		}
		if err != nil {
			if pause == statusWatchPause {
				fmt.Fprintf(a.stderr, "note: what is shown may be out of date, and is read again: %s\n", oneLine(err.Error()))
			}
			pause = min(2*pause, statusWatchMost)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(pause):
			}
			continue
		}
		if pause > statusWatchPause {
			fmt.Fprintln(a.stderr, "note: the cluster can be read again")
			pause = statusWatchPause
		}
		text, err := json.Marshal(doc)
		if err != nil {
			return err
		}
		edges, err := json.Marshal(doc.Edges) // notes tell how long ago something was, and that changes always
		if err != nil {
			return err
		}
		if !bytes.Equal(edges, shown) || len(doc.Notes) != notes {
			err := a.showAgain(text, shown == nil, func(p *page) error {
				for _, n := range doc.Notes {
					fmt.Fprintln(p.w, "note:", oneLine(n))
				}
				if len(doc.Edges) > 0 {
					return doc.show(p, one)
				}
				_, err := fmt.Fprintf(p.w, "There is no AmbientEdge in %s.\n", where)
				return err
			})
			if err != nil {
				return err
			}
			shown, notes = edges, len(doc.Notes)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(statusWatchPause):
		}
	}
}
