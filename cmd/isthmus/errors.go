package main

import (
	"errors"
	"fmt"
	"strings"
)

// The exit codes; rootLong promises them.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	exitUnseen = 3 // of isthmus check, whose findings are 1, when nobody sees what was found
)

// usageError is a command line that makes no sense.
type usageError struct {
	err     error
	command string // "isthmus dial"
}

func (e *usageError) Error() string { return e.err.Error() }

// Unwrap gives the cause.
func (e *usageError) Unwrap() error { return e.err }

// usagef is a usageError of values that cobra does not check.
func usagef(command, format string, args ...any) error {
	return &usageError{err: fmt.Errorf(format, args...), command: command}
}

// failure is an error for people: what did not work, where, and what to do next.
type failure struct {
	what  string
	where string // a hop, an object, a file; may be empty
	next  string // may be empty
	err   error  // may be nil
	gone  bool   // what was asked for is not there
}

func (e *failure) Error() string {
	if e.err == nil {
		return e.what
	}
	return e.what + ": " + e.err.Error()
}

// Unwrap gives the cause.
func (e *failure) Unwrap() error { return e.err }

// unseenError is what kept isthmus check from looking, or from telling.
type unseenError struct{ err error }

// unseen marks an error as one that kept isthmus check from looking, or from telling.
func unseen(err error) error { return &unseenError{err} }

func (e *unseenError) Error() string { return e.err.Error() }

// Unwrap gives the cause.
func (e *unseenError) Unwrap() error { return e.err }

func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	if _, ok := errors.AsType[*unseenError](err); ok {
		return exitUnseen
	}
	if _, ok := errors.AsType[*usageError](err); ok {
		return exitUsage
	}
	return exitFailed
}

// errorDocument is an error with -o json.
type errorDocument struct {
	header
	errorDetail
}

// errorDetail is an error inside another document.
type errorDetail struct {
	Message  string `json:"message"`
	Where    string `json:"where,omitempty"`
	Cause    string `json:"cause,omitempty"`
	Next     string `json:"next,omitempty"`
	ExitCode int    `json:"exitCode"`
}

// detail is what is told of an error: no tokens, which command lines may have.
func detail(err error) errorDetail {
	d := errorDetail{Message: masked(err.Error()), ExitCode: exitCode(err)}
	if u, ok := errors.AsType[*usageError](err); ok {
		d.Next = "see " + u.command + " --help"
		return d
	}
	if f, ok := errors.AsType[*failure](err); ok {
		d.Message, d.Where, d.Next = masked(f.what), f.where, f.next
		if f.err != nil {
			d.Cause = masked(f.err.Error())
		}
	}
	return d
}

// report tells err to standard error.
func (a *app) report(err error) {
	d := detail(err)
	if a.output == outputJSON {
		_ = encode(a.stderr, errorDocument{newHeader("Error"), d})
		return
	}
	p := a.page(a.stderr)
	fmt.Fprintln(p.w, p.paint(red, "error:"), oneLine(d.Message))
	for _, part := range []struct{ name, text string }{{"where", d.Where}, {"cause", d.Cause}, {"next", d.Next}} {
		if part.text != "" {
			fmt.Fprintf(p.w, "  %s %s\n", p.paint(bold, fmt.Sprintf("%-6s", part.name+":")), oneLine(part.text))
		}
	}
}

// oneLine joins what errors.Join and others put on lines of their own.
func oneLine(s string) string { return clean(strings.TrimSpace(s)) }
