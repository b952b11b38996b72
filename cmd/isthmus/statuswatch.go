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

// statusWatch shows what status does, and again whenever that changes, until ctx ends, or the AmbientEdge that was named is gone.
func (a *app) statusWatch(ctx context.Context, f *statusFlags, args []string) error {
	var shown []byte
	for {
		doc, where, err := f.read(ctx, args)
		if ctx.Err() != nil {
			return nil // that is how it ends
		}
		if err != nil {
			return err
		}
		text, err := json.Marshal(doc)
		if err != nil {
			return err
		}
		if !bytes.Equal(text, shown) {
			err := a.showAgain(text, shown == nil, func(p *page) error {
				for _, n := range doc.Notes {
					fmt.Fprintln(p.w, "note:", oneLine(n))
				}
				if len(doc.Edges) > 0 {
					return doc.show(p, len(args) == 1)
				}
				_, err := fmt.Fprintf(p.w, "There is no AmbientEdge in %s.\n", where)
				return err
			})
			if err != nil {
				return err
			}
			shown = text
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(statusWatchPause):
		}
	}
}
