package main

import (
	"fmt"
	"time"
)

// progressAfter is how long a command may be silent.
const progressAfter = 2 * time.Second

// progress says on standard error what is waited for, once that takes longer than progressAfter: a line that is kept up to date on a
// terminal, and one single line elsewhere. The returned function ends it, and must be called before anything else is said.
func (a *app) progress(what string) (done func()) {
	live := terminal(a.stderr) > 0 && !a.dumb()
	start := time.Now()
	stop := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		timer := time.NewTimer(progressAfter)
		defer timer.Stop()
		said := false
		for {
			select {
			case <-stop:
				if said && live {
					fmt.Fprint(a.stderr, "\r\x1b[K")
				}
				return
			case <-timer.C:
			}
			said = true
			if !live {
				fmt.Fprintf(a.stderr, "%s ...\n", what)
				<-stop
				return
			}
			fmt.Fprintf(a.stderr, "\r\x1b[K%s ... %d s", what, int(time.Since(start).Seconds()))
			timer.Reset(time.Second)
		}
	}()
	return func() {
		close(stop)
		<-ended
	}
}
