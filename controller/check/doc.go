// Package check finds what is wrong between edges and an ambient mesh, in the objects of a cluster or of files, whether Isthmus is installed there
// or not. It is pure: no client, no clock.
//
//	b := check.NewBuilder(check.Mesh{})
//	for _, o := range objects {
//		b.Add(o, "shop.yaml:12")
//	}
//	for _, f := range check.Run(b.World(), check.All()) {
//		fmt.Println(f.Code, f.Object, f.Message)
//	}
//
// A Check has a code that is the same for ever, and says what it finds, what happens to whom, and how it is mended. What it cannot see it does not
// say: a finding that is an Error holds for every cluster that has these objects, as far as controllers have acted on them.
//
// An object with the annotation isthmus.dev/ignore: "ISM204: reason" has its findings of that code marked with the reason; they are never left out.
package check
