package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/isthmus-mesh/isthmus/hbone"
	"github.com/isthmus-mesh/isthmus/hbone/route"
)

// writeRoots is the command that writes this mesh's roots.
const writeRoots = "kubectl get configmap istio-ca-root-cert -o jsonpath='{.data.root-cert\\.pem}'"

// party is whom we ask for a certificate, or for a way.
type party struct {
	who            string
	addresses      []string
	name           string // in its certificate
	flag, nameFlag string
	runs, log      string // what to check
}

// control is istiod, who knows the ways.
func (m *meshFlags) control() party {
	return party{
		who: "istiod", addresses: m.istiod, name: m.istiodName, flag: "--istiod", nameFlag: "--istiod-name",
		runs: "istiod runs (kubectl -n istio-system get pods -l app=istiod), and that its port 15012", log: "istiod's log: kubectl -n istio-system logs deploy/istiod",
	}
}

// authority is who signs certificates: istiod, unless --ca names another.
func (m *meshFlags) authority() party {
	at := m.control()
	if len(m.identity.authority) > 0 {
		at = party{
			who: "authority", addresses: m.identity.authority, name: cmp.Or(m.identity.authorityName, m.istiodName), flag: "--ca", nameFlag: "--ca-name",
			runs: "the authority runs, and that this port of it", log: "the authority's log",
		}
	}
	return at
}

// explain says what an answer of the party's means, or that there was none.
func (at party) explain(what string, m *meshFlags, err error) error {
	f := &failure{what: what, where: at.who + " " + strings.Join(at.addresses, ", "), err: err}
	code := grpcCode(err)
	switch text := err.Error(); {
	case errors.Is(err, context.Canceled):
	case code == codes.Unauthenticated || code == codes.PermissionDenied:
		f.next = fmt.Sprintf("check that %s is a token of this service account, for audience istio-ca, and not expired (kubectl create token NAME -n NAMESPACE --audience istio-ca)", m.tokenFile)
		if m.identity.impersonate {
			f.next += "; with --impersonate it is the node agent's own, bound to its pod, and a pod of --service-account runs on that pod's node"
		}
	case wrongName(text) && !strings.Contains(text, ".svc"):
		f.next = fmt.Sprintf("somebody else answers there, with a certificate of no Service: check %s, and HTTPS proxies on the way", at.flag)
	case wrongName(text):
		f.next = fmt.Sprintf("%s is %s: set it to one of the names in the certificate, which are named here", at.nameFlag, at.name)
	case code == codes.Unavailable && (strings.Contains(text, "x509: ") || strings.Contains(text, "tls: ")): // gRPC keeps only the text
		f.next = fmt.Sprintf("check that %s holds this mesh's root: %s", m.caRoots, writeRoots)
	case code == codes.Unavailable:
		f.next = fmt.Sprintf("check that %s can be reached from here; another one is named with %s", at.runs, at.flag)
	case errors.Is(err, fs.ErrNotExist) && strings.Contains(text, m.tokenFile):
		f.next = strings.TrimSuffix(noToken, "; ")
	case strings.Contains(text, m.caRoots):
		f.next = "write the roots with: " + writeRoots + ", and name the file with --ca-roots"
	default:
		f.next = "look into " + at.log
	}
	return f
}

// explainAgent says what an answer of an agent's means, or that there was none.
func explainAgent(what, socket string, err error) error {
	f := &failure{what: what, where: socket, err: err}
	switch text, code := err.Error(), grpcCode(err); {
	case errors.Is(err, context.Canceled):
	case code == codes.Unavailable:
		f.next = "check that the agent runs and that its socket is mounted here; another one is named with --socket"
	case strings.Contains(text, "has no secret"):
		f.next = "name what the agent has with --sds-name and --sds-roots; a SPIRE agent also has to know this process: spire-server entry show"
	case code == codes.PermissionDenied:
		f.next = "register this process with a selector that fits it: spire-server entry create -parentID ... -spiffeID ... -selector unix:uid:" + strconv.Itoa(os.Getuid())
	case strings.Contains(text, "Config.ID"), strings.Contains(text, "Config.Hint"):
		f.next = "correct --spiffe-id or --spire-hint, or leave them out to take the first"
	default:
		f.next = "look into the agent's log"
	}
	return f
}

// wrongName says whether a certificate was refused for its names alone. From gRPC only the text comes.
func wrongName(text string) bool {
	return strings.Contains(text, "x509: certificate is valid for ") || strings.Contains(text, "x509: certificate is not valid for any names")
}

// grpcCode is the code of the first gRPC status in err's tree, codes.OK when there is none.
func grpcCode(err error) codes.Code {
	if s, ok := errors.AsType[interface {
		error
		GRPCStatus() *status.Status
	}](err); ok {
		return s.GRPCStatus().Code()
	}
	return codes.OK
}

// explainResolve says why there is no way to target.
func explainResolve(target string, m *meshFlags, err error) error {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	no, ok := errors.AsType[*route.Error](err)
	if !ok {
		return m.control().explain("istiod did not say how to reach "+target, m, err)
	}
	f := &failure{what: "there is no way to " + target, where: "istiod " + strings.Join(m.istiod, ", "), err: errors.New(no.Why)}
	switch {
	case strings.Contains(no.Why, "outside the mesh"):
		f.next = "dial a Service or a pod of the mesh; isthmus never goes around it in plaintext"
	case strings.Contains(no.Why, "waypoint"):
		f.next = "bring the waypoint back, or take the label istio.io/use-waypoint away: kubectl get gateways -A, isthmus status -A"
	case strings.Contains(no.Why, "no Service of that name"):
		f.next = "check name and namespace: kubectl get services -A"
		if full := fullName(target); full != "" {
			f.next = fmt.Sprintf("names are not completed as a pod's DNS does: if a Service is meant, write %s; %s", full, f.next)
		}
	case strings.Contains(no.Why, "has no port"):
		f.next = "dial a port of the Service, not of its pods: kubectl get services -A"
	case strings.Contains(no.Why, "endpoints"):
		f.next = "check its pods: kubectl get endpointslices -A"
	default:
		f.next = "check name and port: kubectl get services -A"
		if full := fullName(target); full != "" {
			f.next = "if a Service is meant, write " + full + "; " + f.next
		}
	}
	return f
}

// fullName is what a target that is short for a Service's name may stand for, with NAMESPACE where that is not said. Empty: it is no such name.
func fullName(target string) string {
	host, port, err := net.SplitHostPort(target)
	if _, ip := netip.ParseAddr(host); err != nil || ip == nil {
		return ""
	}
	switch host = strings.TrimSuffix(host, ".svc"); strings.Count(host, ".") {
	case 0:
		host += ".NAMESPACE"
	case 1:
	default:
		return ""
	}
	return net.JoinHostPort(host+".svc.cluster.local", port)
}

// explainDial says at which hop a dial failed, and what to do.
func explainDial(target string, err error) error {
	e, ok := errors.AsType[*hbone.DialError](err)
	if !ok {
		return &failure{what: "cannot dial " + target, err: err}
	}
	f := &failure{what: "cannot dial " + target, where: hopName(e.Kind, e.Name, e.Hop.String()), err: err}
	if !e.Hop.IsValid() {
		f.where = ""
	}
	if inner, ok := errors.AsType[*hbone.PeerError](err); ok {
		f.err = inner
		f.next = "if the route is out of date, try again; if not, somebody else answers there: compare the hop's service account with the certificate's"
		return f
	}
	switch {
	case e.Status == 401 || e.Status == 403:
		f.next = "see who may call it: kubectl get authorizationpolicies -A; our identity has to be among the principals of an ALLOW and of no DENY"
	case e.Status == 400:
		f.next = "that hop does not serve " + e.Target + "; if the waypoint was set up just now, wait for it: isthmus status -A"
	case e.Status == 503:
		f.next = "check that the pods behind it are ready and listen on the target port"
	case e.Status != 0:
		f.next = "look into the log of that hop"
	case e.Timeout():
		f.next = "check that the hop's pod is there, and that no NetworkPolicy or firewall blocks port 15008"
	case errors.Is(err, context.Canceled):
	default:
		f.next = "check that the hop's pod runs and is part of the mesh (istio.io/dataplane-mode=ambient), and that port 15008 can be reached from here"
	}
	return f
}

// hopName is "waypoint shop/waypoint-7d9f at 10.0.0.7:15008".
func hopName(kind hbone.HopKind, name, addr string) string {
	var parts []string
	for _, p := range []string{string(kind), name} {
		if p != "" {
			parts = append(parts, p)
		}
	}
	if len(parts) == 0 {
		return addr
	}
	return strings.Join(parts, " ") + " at " + addr
}
