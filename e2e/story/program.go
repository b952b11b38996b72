package story

import (
	"fmt"
	"os"

	"github.com/isthmus-mesh/isthmus/e2e/node"
)

// commands are the files of every image of the story that people look for with Exec.
func (w *World) commands() map[string]string {
	return map[string]string{"/usr/local/bin/isthmus": w.Binary}
}

// programPath is where a program of this machine stands in its container.
const programPath = "/program"

// program is the image of a program of this machine, as a gateway author's own: a pod whose image is its absolute path runs it.
func (w *World) program(path string) (node.Image, error) {
	info, err := os.Stat(path)
	if err != nil {
		return node.Image{}, fmt.Errorf("find the program that the image names: %w", err)
	}
	if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
		return node.Image{}, fmt.Errorf("the image names %s, which is no program: name one that this machine can run", path)
	}
	files := w.commands()
	files[programPath] = path
	return node.Image{Entrypoint: []string{programPath}, Files: files}, nil
}
