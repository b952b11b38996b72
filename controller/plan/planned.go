package plan

import (
	"slices"

	"github.com/isthmus-mesh/isthmus/controller/api/v1alpha1"
)

// Planned are the findings of the plan of each of a snapshot's Edges, in the order of these; none of one that is being deleted. views are what Survey has seen
// of the same snapshot: it has made most of these plans. The snapshot must not change meanwhile. Nobody is asked: it takes the snapshot for Hearsay.
func Planned(s *Snapshot, views []View) [][]v1alpha1.Finding {
	made := map[*v1alpha1.AmbientEdge][]v1alpha1.Finding{}
	for i := range views {
		v := &views[i]
		classless := func(f v1alpha1.Finding) bool { return f.Code == v1alpha1.FindingNoClass } // then its plan was not made
		if v.Exists && !slices.ContainsFunc(v.Findings, classless) {
			made[v.Edge] = v.Findings
		}
	}
	list := make([][]v1alpha1.Finding, len(s.Edges))
	var left []int
	for i := range s.Edges {
		e := &s.Edges[i]
		if e.DeletionTimestamp != nil {
			continue
		}
		var there bool
		if list[i], there = made[e]; !there {
			left = append(left, i)
		}
	}
	if len(left) == 0 {
		return list
	}
	whole := s.indexed()
	whole.Hearsay = true
	AtOnce(len(left), func(i int) {
		look := *whole
		look.Edge = &s.Edges[left[i]]
		list[left[i]] = Make(&look).Findings
	})
	return list
}
