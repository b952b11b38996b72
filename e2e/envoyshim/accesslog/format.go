package accesslog

// Format is the part of a mesh configuration that makes Envoy write the lines that Requests reads.
const Format = `accessLogFile: /dev/stdout
accessLogEncoding: JSON
accessLogFormat: |
  {
    "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "authority": "%REQ(:AUTHORITY)%",
    "status": "%RESPONSE_CODE%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "ended": "%CONNECTION_TERMINATION_DETAILS%",
    "flags": "%RESPONSE_FLAGS%",
    "peer": "%FILTER_STATE(io.istio.peer_principal:PLAIN)%",
    "tls_peer": "%DOWNSTREAM_PEER_URI_SAN%",
    "policy": "%DYNAMIC_METADATA(envoy.filters.http.rbac:enforced_effective_policy_id)%",
    "tcp_policy": "%DYNAMIC_METADATA(envoy.filters.network.rbac:enforced_effective_policy_id)%",
    "iss": "%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:payload:iss)%",
    "sub": "%DYNAMIC_METADATA(envoy.filters.http.jwt_authn:payload:sub)%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "target": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "upstream": "%UPSTREAM_HOST%"
  }
`
