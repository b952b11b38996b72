package wdstest

import (
	"github.com/isthmus-mesh/isthmus/hbone/authz"
	"github.com/isthmus-mesh/isthmus/hbone/route"
	"github.com/isthmus-mesh/isthmus/hbone/wds/internal/encode"
)

// EncodeWorkload is the istio.workload.Address of a workload.
func EncodeWorkload(w *route.Workload) []byte { return encode.Workload(w) }

// EncodeService is the istio.workload.Address of a Service.
func EncodeService(s *route.Service) []byte { return encode.Service(s) }

// EncodePolicy is an istio.security.Authorization.
func EncodePolicy(p *authz.Policy) []byte { return encode.Policy(p) }
