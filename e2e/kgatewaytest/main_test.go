package kgatewaytest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/isthmus-mesh/isthmus/e2e/capture"
	"github.com/isthmus-mesh/isthmus/e2e/envoyshim"
	"github.com/isthmus-mesh/isthmus/e2e/mesh"
	"github.com/isthmus-mesh/isthmus/e2e/story/apps"
	"github.com/isthmus-mesh/isthmus/e2e/world"
)

var kgateway = flag.Bool("kgateway", false, "run kgateway, which is built first")

func TestMain(m *testing.M) {
	world.Enter(mesh.Funcs(capture.Funcs(), envoyshim.Funcs(), world.Funcs{"orders": apps.Orders, "inside": inside, askFunc: ask}))
	ctrl.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

// askFunc names ask, and askPath is where it is in the containers of kgateway.
const (
	askFunc = "ask"
	askPath = "/opt/test/ask"
)

// ask prints the page at an address that only the containers of its pod reach.
func ask(args []string) int {
	if err := get(args, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func get(args []string, out io.Writer) error {
	if len(args) != 1 {
		return errors.New("need an address")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, args[0], nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", args[0], res.Status)
	}
	_, err = io.Copy(out, res.Body)
	return err
}
