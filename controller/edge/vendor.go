package edge

import (
	"slices"
	"strings"
	"sync"
)

// Labels that Istio and the Gateway API define.
const (
	LabelGatewayName        = "gateway.networking.k8s.io/gateway-name"
	LabelIngressUseWaypoint = "istio.io/ingress-use-waypoint"
)

// Vendor describes a kind of gateway.
type Vendor struct {
	// Name is what people call it. It stands in statuses, and never changes.
	Name string
	// Controllers are the controllerNames of its GatewayClasses.
	Controllers []string
	// IngressControllers are the controllers of its IngressClasses. A class may append a slash and a name of its own.
	IngressControllers []string
	// Proxies says where the pods of a Gateway are.
	Proxies Proxies
	// Workload knows its proxies where no Gateway stands for them. Empty: nothing does.
	Workload Match
	// Controller knows the workload that programs the proxies: it stays outside, and tells version and settings. Empty: there is none
	// apart from the proxies.
	Controller Match
	// Ports are those that people leave alone.
	Ports []Port
	// Native says whether it speaks HBONE itself, and must not be captured.
	Native Native
	// Never says why its pods can never be captured one gateway at a time. Empty: they can.
	Never string
	// Infrastructure: labels and annotations of Gateway.spec.infrastructure reach its pods, which are rolled for that.
	Infrastructure bool
	// OncePerStream: it sees that it is captured when it connects to its controller, and then no more. Pods that were captured later
	// must be rolled.
	OncePerStream bool
	// Switches make it send to a Service's address, and so through its waypoint; the first that fits is taken.
	Switches []Switch
	// NoSwitch says why there is none, and what is left to do. Empty, without Switches: it sends there anyway, or nobody knows.
	NoSwitch string
	// Needs are settings of its controller without which no switch does anything.
	Needs []Setting
	// NotNative says why no switch does anything for pods that do not speak HBONE, with NativeByMode. Nil: it does.
	NotNative *Setting
	// Delegation says how routes delegate to others. Nil: it follows none.
	Delegation *Delegation
	// Headless says what comes of a Service without an address of its own, with the switch on.
	Headless string
	// Loses are features that one address in place of many pods takes away.
	Loses []Loss
	// Warnings are what else everybody should know who sends through it into a mesh.
	Warnings []string
	// Inspect says where people see what it has really programmed.
	Inspect string
	// Shows are pages where that can be read, the first that answers counts. Empty: isthmus does not read it.
	Shows []Page
	// Upstreams are the names of what it has programmed for a Service: a text with {namespace}, {name} and {port} of the Service, and * for anything. Empty:
	// they tell nothing, or nothing that is known.
	Upstreams string
}

// Page is one on which a gateway, or its controller, shows what it has programmed.
type Page struct {
	// Controller: its controller's pods show it for all their proxies. Otherwise each of the gateway's pods does for itself.
	Controller bool
	// Port of the pod, and the Path there.
	Port int
	Path string
	// Outside: the port is served on the pod's address too. Otherwise only on its loopback.
	Outside bool
	// Needs says what must be set for it to be there. Empty: nothing.
	Needs string
}

// envoyDump is the page of an Envoy's administration.
func envoyDump(port int) Page { return Page{Port: port, Path: "/config_dump?include_eds"} }

// Native says whether a gateway speaks HBONE itself.
type Native int

// The kinds.
const (
	NativeNever  Native = iota
	NativeAlways        // all its pods do
	NativeByMode        // those that its own controller labels istio.io/dataplane-mode=none do
)

// Proxies says where the pods of a Gateway are. Texts may have {name}, {namespace} and {class}, which are the Gateway's.
type Proxies struct {
	// Labels that the pods have.
	Labels map[string]string
	// Service has these labels, and selects the pods.
	Service map[string]string
	// Anywhere: they may be in other namespaces than the Gateway's.
	Anywhere bool
	// Shared: pods of Vendor.Workload serve all Gateways.
	Shared bool
	// Account is the name of their service account. Empty: whoever installs it chooses.
	Account string
	// Merge says when the same pods serve all Gateways of a class. Zero: never.
	Merge Merge
}

// Merge is a field of the parameters of a class by which the same pods serve all its Gateways.
type Merge struct {
	// Kind of the parameters, and the Path of the field, which is true then.
	Kind Kind
	Path []string
	// Labels that the pods have then, with {class}.
	Labels map[string]string
	// Enrol is the path in the parameters of labels that reach the pods.
	Enrol []string
}

// Match knows a workload by its pod template: by labels, all of them, or by an image.
type Match struct {
	Labels map[string]string
	// Images are the last parts of names of images, without tag.
	Images []string
}

// Port is a port of a gateway's pods.
type Port struct {
	Number int
	Use    string
}

// Setting is an environment variable of a controller, or another condition.
type Setting struct {
	// Env is its name, Want its value, and Default what holds when it is not set.
	Env, Want, Default string
	// Why says what happens without, and Fix what to do.
	Why, Fix string
}

// Loss is a field that has no effect any more.
type Loss struct {
	// Kind of the object, of those that the plan reads, and Path of the field in it.
	Kind string
	Path []string
	// Value is what it must be. Empty: it is there.
	Value string
	// What is lost.
	What string
}

// Vendors is the table. What its entries point to is everybody's: nobody changes it.
func Vendors() []Vendor { return slices.Clone(vendors()) }

// vendors is made once: every workload of a cluster is looked up in it.
var vendors = sync.OnceValue(func() []Vendor {
	return []Vendor{
		istio(), istioAgentgateway(), kgateway(), agentgateway(), envoyGateway(), ingressNGINX(), nginxIngress(), nginxFabric(),
		traefik(), kong(), kongOperator(), haproxyTech(), haproxyIngress(), contour(), apisix(), cilium(), caddy(),
	}
})

// ByController is the vendor of a GatewayClass's controllerName, or Custom.
func ByController(name string) Vendor {
	return first(func(v *Vendor) bool { return slices.Contains(v.Controllers, name) })
}

// ByIngressController is the vendor of an IngressClass's controller, or Custom.
func ByIngressController(name string) Vendor {
	return first(func(v *Vendor) bool { return v.Obeys(name) })
}

// ByControllerWorkload is the vendor whose controller has these labels and images in its pod template. It reports whether there is one.
func ByControllerWorkload(labels map[string]string, images []string) (Vendor, bool) {
	v := first(func(v *Vendor) bool { return v.Controller.Fits(labels, images) })
	return v, v.Name != Custom().Name
}

// ByWorkload is the vendor of proxies with these labels and images in their pod template, or Custom.
func ByWorkload(labels map[string]string, images []string) Vendor {
	return first(func(v *Vendor) bool { return v.Workload.Fits(labels, images) })
}

func first(ok func(*Vendor) bool) Vendor {
	list := vendors()
	for i := range list {
		if ok(&list[i]) {
			return list[i]
		}
	}
	return Custom()
}

// Obeys says whether Ingresses of an IngressClass with this controller are the vendor's.
func (v *Vendor) Obeys(ingressController string) bool {
	return slices.ContainsFunc(v.IngressControllers, func(c string) bool {
		return ingressController == c || strings.HasPrefix(ingressController, c+"/")
	})
}

// Custom is a gateway that is not in the table. It is captured, and is taken to send to Service addresses.
func Custom() Vendor {
	return Vendor{Name: "custom", Proxies: byGatewayName()}
}

// byGatewayName finds pods as the Gateway API recommends to label them.
func byGatewayName() Proxies {
	return Proxies{Labels: map[string]string{LabelGatewayName: "{name}"}}
}

// Of are labels for one Gateway.
func Of(labels map[string]string, namespace, name, class string) map[string]string {
	r := strings.NewReplacer("{name}", name, "{namespace}", namespace, "{class}", class)
	out := make(map[string]string, len(labels))
	for k, v := range labels {
		out[k] = r.Replace(v)
	}
	return out
}
