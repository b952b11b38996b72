package manifests

import (
	"bytes"
	"embed"
	"fmt"
)

//go:generate go test -run TestRolesAreCurrent . -update

// Names that the files use.
const (
	// Namespace is where the controller runs.
	Namespace = "isthmus-system"
	// Controller is the name of its Deployment and of its ServiceAccount.
	Controller = "isthmus-controller"
	// Image is what its container runs. Nobody can publish under that name: an installation replaces it.
	Image = "isthmus.invalid/isthmus:devel"
)

//go:embed install/*.yaml crd/*.yaml monitoring/*
var files embed.FS

// order is that of an installation: what others need comes first.
func order() []string {
	return []string{
		"crd/isthmus.dev_ambientedges.yaml", "install/namespace.yaml", "install/role-view.yaml", "install/role-observe.yaml", "install/role-manage.yaml",
		"install/role-author.yaml", "install/leases.yaml", "install/bindings.yaml", "install/admission-author.yaml", "install/admission-controller.yaml", "install/controller.yaml",
	}
}

// Install returns all that an installation applies, as one YAML stream in an order that works.
func Install() ([]byte, error) {
	var out bytes.Buffer
	for i, name := range order() {
		data, err := files.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("manifests: %w", err)
		}
		if i > 0 {
			out.WriteString("---\n")
		}
		out.Write(data)
	}
	return out.Bytes(), nil
}

// CRD returns the CustomResourceDefinition of AmbientEdges, as YAML.
func CRD() ([]byte, error) {
	data, err := files.ReadFile(order()[0])
	if err != nil {
		return nil, fmt.Errorf("manifests: %w", err)
	}
	return data, nil
}
