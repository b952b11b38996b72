package check

// Where says where an object stands, as file:line. Empty: it is of a cluster, or not there at all.
func (w *World) Where(o Object) string { return w.where[o] }
