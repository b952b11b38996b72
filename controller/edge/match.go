package edge

import (
	"slices"
	"strings"
)

// Fits says whether a pod template has the labels, or one of the images.
func (m *Match) Fits(labels map[string]string, images []string) bool {
	if len(m.Labels) > 0 {
		all := true
		for k, v := range m.Labels {
			all = all && labels[k] == v
		}
		if all {
			return true
		}
	}
	return slices.ContainsFunc(images, m.image)
}

// Version is the version that the tag of the first image which fits tells. Empty: it does not tell.
func (m *Match) Version(images []string) string {
	for _, image := range images {
		if !m.image(image) {
			continue
		}
		_, tag := splitImage(image)
		if v := strings.TrimPrefix(tag, "v"); len(numbers(v)) > 1 {
			return v
		}
	}
	return ""
}

func (m *Match) image(image string) bool {
	name, _ := splitImage(image)
	return slices.ContainsFunc(m.Images, func(want string) bool { return name == want || strings.HasSuffix(name, "/"+want) })
}

// splitImage splits registry:port/name:tag@digest into name, with all before it, and tag.
func splitImage(image string) (name, tag string) {
	image, _, _ = strings.Cut(image, "@")
	if at := strings.LastIndex(image, ":"); at > strings.LastIndex(image, "/") {
		return image[:at], image[at+1:]
	}
	return image, ""
}

// Before says whether version a comes before b. What is not a number, and all that follows it, is not compared.
func Before(a, b string) bool {
	return slices.Compare(numbers(a), numbers(b)) < 0
}

// numbers are the leading numbers of 1.8.0-rc1: 1, 8, 0.
func numbers(version string) []int {
	var list []int
	for part := range strings.SplitSeq(version, ".") {
		n, digits := 0, 0
		for _, r := range part {
			if r < '0' || r > '9' || digits == 9 {
				break
			}
			n, digits = n*10+int(r-'0'), digits+1
		}
		if digits == 0 {
			break
		}
		if list = append(list, n); digits < len(part) {
			break
		}
	}
	return list
}
