package node

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// image is what a container's image name stands for.
func (c *Config) image(name string) (Image, error) {
	if img, ok := c.Images[name]; ok {
		return img, nil
	}
	also := ""
	if c.Program != nil {
		if filepath.IsAbs(name) {
			return c.Program(name)
		}
		also = ", and programs of this machine by their absolute paths"
	}
	return Image{}, fmt.Errorf("image %q is not known to the node; it has %s%s", name, strings.Join(slices.Sorted(maps.Keys(c.Images)), ", "), also)
}
