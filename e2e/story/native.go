package story

import (
	_ "embed"
	"strings"
)

// nativeSource is the native gateway, to say how long it is.
//
//go:embed native/gateway.go
var nativeSource string

func nativeLines() int { return strings.Count(nativeSource, "\n") }
