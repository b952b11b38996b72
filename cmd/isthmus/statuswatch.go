package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// statusWatchPause is how often a watch of statuses reads them.
const statusWatchPause = time.Second

// statusWatch shows what read gets, and again whenever that changes, until ctx ends, or read fails: the AmbientEdge that was named may be gone.
func (a *app) statusWatch(ctx context.Context, one bool, read func(context.Context) (*statusDocument, string, error)) error {
	var shown []byte // its edges
	notes := 0       // how many there were
	for {
		doc, where, err := read(ctx)
		select {
		case <-ctx.Done():
			return nil // that is how it ends
		default:
		}
		if err != nil {
			return err
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
