package main

import "sigs.k8s.io/yaml"

// bareOff finds an AmbientEdge with authorization mode Off without quotes, which YAML takes for false: what the API server and our own reader say of that
// is about a boolean that nobody wrote.
func bareOff(data []byte, where string) error {
	var e struct {
		Spec struct {
			Authorization struct {
				Mode any `json:"mode"`
			} `json:"authorization"`
		} `json:"spec"`
	}
	if err := yaml.Unmarshal(data, &e); err != nil {
		return nil //nolint:nilerr // who reads it in earnest says so
	}
	if is, boolean := e.Spec.Authorization.Mode.(bool); !boolean || is {
		return nil
	}
	return &failure{
		what: "this AmbientEdge is malformed: spec.authorization.mode is false, for which YAML takes the bare word Off", where: where,
		next: `write mode: "Off", with quotes, or leave authorization out`,
	}
}
