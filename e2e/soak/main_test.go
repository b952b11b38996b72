package soak

import (
	"flag"
	"os"
	"testing"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/isthmus-mesh/isthmus/e2e/story"
	"github.com/isthmus-mesh/isthmus/e2e/world"
)

var (
	duration = flag.Duration("duration", 20*time.Second, "how long to go on; each event happens at least once")
	only     = flag.String("events", "", "comma-separated names of the events that happen, in this order; empty: all")
)

func TestMain(m *testing.M) {
	world.Enter(story.Funcs())
	ctrl.SetLogger(logr.Discard())
	os.Exit(m.Run())
}
