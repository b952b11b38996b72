package edge

// kongOperator is Kong as its operator runs it, a DataPlane a Gateway. Read at head of August 2026.
func kongOperator() Vendor {
	return Vendor{
		Name: "kong-operator", Controllers: []string{"konghq.com/gateway-operator"},
		Proxies: Proxies{Labels: map[string]string{
			LabelGatewayName: "{name}", "gateway-operator.konghq.com/managed-by": "dataplane",
		}},
		Controller: Match{Images: []string{"kong/kong-operator", "kong/gateway-operator"}},
		Ports:      []Port{{8100, "status, metrics"}, {8444, "admin: its controller calls it"}},

		Infrastructure: true,
		Switches:       []Switch{serviceAnnotation("ingress.kubernetes.io/service-upstream")},
		Headless:       kongHeadless,
		Loses:          kongLoses(),
		Inspect:        "the admin API's /upstreams and /services: host is the Service's name",
	}
}
