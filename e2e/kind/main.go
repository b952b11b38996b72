package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/isthmus-mesh/isthmus/e2e/story/apps"
	"github.com/isthmus-mesh/isthmus/e2e/story/native"
	"github.com/isthmus-mesh/isthmus/e2e/story/plain"
	"github.com/isthmus-mesh/isthmus/e2e/story/state"
)

const help = `kind orders | caller | plain-gateway | native-gateway [FLAGS]   is that program of the story
kind certificate HOST...                                       prints the edge's certificate and key as objects
kind read                                                      prints every object of the cluster that KUBECONFIG names
kind same FILE                                                 waits until they are what read has printed, for a minute
`

func main() {
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, help)
		os.Exit(2)
	}
	name, args := os.Args[1], os.Args[2:]
	if program := map[string]func([]string) int{
		"orders": apps.Orders, "caller": apps.Caller, "plain-gateway": plain.Main, "native-gateway": native.Main,
	}[name]; program != nil {
		os.Exit(program(args))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, name, args, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "kind:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, name string, args []string, out io.Writer) error {
	switch {
	case name == "certificate" && len(args) > 0:
		return certificate(out, args)
	case name == "read" && len(args) == 0:
		now, err := read(ctx)
		if err != nil {
			return err
		}
		return json.NewEncoder(out).Encode(now)
	case name == "same" && len(args) == 1:
		return same(ctx, out, args[0])
	}
	return fmt.Errorf("%q is not known\n%s", strings.Join(append([]string{name}, args...), " "), help)
}

// certificate writes what the edge serves with, and what its customers trust.
func certificate(out io.Writer, hosts []string) error {
	chain, key, err := apps.Certificate(hosts...)
	if err != nil {
		return err
	}
	for _, object := range []any{
		corev1.Secret{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: metav1.ObjectMeta{Namespace: "edge", Name: "edge-tls"},
			Type: corev1.SecretTypeTLS, Data: map[string][]byte{corev1.TLSCertKey: chain, corev1.TLSPrivateKeyKey: key},
		},
		corev1.ConfigMap{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: metav1.ObjectMeta{Namespace: "customers", Name: "edge"},
			Data: map[string]string{corev1.TLSCertKey: string(chain)},
		},
	} {
		if err := json.NewEncoder(out).Encode(object); err != nil {
			return err
		}
	}
	return nil
}

func read(ctx context.Context) (state.Objects, error) {
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(clientcmd.NewDefaultClientConfigLoadingRules(), nil).ClientConfig()
	if err != nil {
		return nil, err
	}
	cfg.QPS, cfg.Burst, cfg.WarningHandler = 100, 200, rest.NoWarnings{} // of kinds that will go one day: they are objects all the same
	return state.Read(ctx, cfg)
}

// settles is how long things that are deleted in the background may take.
const settles = time.Minute

// same waits until each object is as file has it, and names those that are not.
func same(ctx context.Context, out io.Writer, file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var before state.Objects
	if err := json.Unmarshal(text, &before); err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	ctx, cancel := context.WithTimeout(ctx, settles)
	defer cancel()
	var diff []string
	for {
		now, err := read(ctx)
		switch {
		case err != nil && len(diff) == 0:
			return err
		case err == nil:
			diff = before.Diff(now)
		}
		if len(diff) == 0 {
			fmt.Fprintf(out, "each of %d objects is as it was\n", len(before))
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.New("the cluster is not as it was:\n" + strings.Join(diff, "\n"))
		case <-time.After(time.Second):
		}
	}
}
