// Package checktest asks isthmus check, and isthmus plan, about a mesh, says what tests want to hear, and takes the patches that findings give. It
// runs the command itself, with the administrator's rights. It imports testing, and so is of tests alone.
package checktest
