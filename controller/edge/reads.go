package edge

// Reads are the fields of a vendor's objects that plans look at, besides their metadata: paths through maps and lists.
func Reads(group, kind string) [][]string {
	paths := [][]string{{"spec", "targetRefs"}, {"spec", "targetRef"}, {"status", "ancestors", "conditions"}}
	for _, v := range Vendors() {
		if m := &v.Proxies.Merge; m.Kind.Group == group && m.Kind.Kind == kind {
			paths = append(paths, m.Path)
		}
		for i := range v.Switches {
			s := &v.Switches[i]
			if s.Kind.Group != group || s.Kind.Kind != kind {
				continue
			}
			if s.On != OnList {
				paths = append(paths, s.Path)
				continue
			}
			for _, field := range [][]string{{s.Name}, {"namespace"}, s.Path} {
				paths = append(paths, append(append([]string{}, s.List...), field...))
			}
		}
		for _, l := range v.Loses {
			if l.Kind == kind {
				paths = append(paths, l.Path)
			}
		}
	}
	return paths
}
