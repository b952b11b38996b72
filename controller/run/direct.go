package run

import (
	"context"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// direct is the client of writes: what they read comes from the API server, not from the cache.
type direct struct {
	client.Client
	live client.Reader
}

// Get reads from the API server.
func (d direct) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	return d.live.Get(ctx, key, o, opts...)
}

var _ client.Client = direct{}
