package edge

import "slices"

// Delegation says how an HTTPRoute leaves requests to other HTTPRoutes: by backendRefs to them, by name or "*" for all of a namespace. Those that
// they go to name it as a parent, or nothing.
type Delegation struct {
	// Group and Kind of backendRefs whose name is the value of a label, Label, that routes have. Empty: there are none.
	Group, Kind, Label string
	// Anywhere is the namespace of such backendRefs that means all namespaces.
	Anywhere string
	// NameIsLabel: a name KEY=VALUE means routes with that label.
	NameIsLabel bool
	// Silent: of a route without parentRefs the gateway does not say whether it has accepted it.
	Silent bool
}

// Delegations are those of all vendors.
func Delegations() []Delegation {
	var list []Delegation
	for _, v := range Vendors() {
		if v.Delegation != nil && !slices.Contains(list, *v.Delegation) {
			list = append(list, *v.Delegation)
		}
	}
	return list
}
