package manifests

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"

	"sigs.k8s.io/yaml"
)

// metricName finds names of metrics in what Prometheus is asked.
var metricName = regexp.MustCompile(`\b(isthmus|controller_runtime|workqueue|rest_client|process|go)_[a-z_]+\b`)

// Metrics returns the names of all metrics that the alerts and the dashboard of monitoring ask for.
func Metrics() ([]string, error) {
	var names []string
	for _, name := range []string{"monitoring/rules.yaml", "monitoring/dashboard.json"} {
		data, err := files.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("manifests: %w", err)
		}
		if data, err = yaml.YAMLToJSON(data); err != nil {
			return nil, fmt.Errorf("manifests: %s: %w", name, err)
		}
		var document any
		if err := json.Unmarshal(data, &document); err != nil {
			return nil, fmt.Errorf("manifests: %s: %w", name, err)
		}
		for _, expr := range exprs(document) {
			names = append(names, metricName.FindAllString(expr, -1)...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// exprs are the values of all fields expr.
func exprs(document any) (list []string) {
	switch d := document.(type) {
	case map[string]any:
		for key, value := range d {
			if text, ok := value.(string); ok && key == "expr" {
				list = append(list, text)
			} else {
				list = append(list, exprs(value)...)
			}
		}
	case []any:
		for _, value := range d {
			list = append(list, exprs(value)...)
		}
	}
	return list
}
