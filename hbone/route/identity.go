package route

import (
	"slices"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// identities is whom w may show itself to be: itself, or one of its Service's names.
func identities(w *Workload, sans []string) ([]spiffeid.ID, error) {
	id, err := w.Identity()
	if err != nil {
		return nil, err
	}
	ids := []spiffeid.ID{id}
	for _, san := range parse(sans) {
		if !slices.Contains(ids, san) {
			ids = append(ids, san)
		}
	}
	return ids, nil
}

// parse keeps what is a SPIFFE id; other names cannot be shown to us.
func parse(sans []string) []spiffeid.ID {
	var ids []spiffeid.ID
	for _, san := range sans {
		if id, err := spiffeid.FromString(san); err == nil && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}
