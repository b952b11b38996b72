package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/isthmus-mesh/isthmus/controller/policy"
)

// requestFlags say what is known of the requests that are asked about. What is not said is unknown.
type requestFlags struct {
	method, path, host string
	headers, jwt       []string
	sourceIP, clientIP string

	words []string // what is known, for people, without secrets
}

func (r *requestFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&r.method, "method", "", "`METHOD` of the request")
	f.StringVar(&r.path, "path", "", "`PATH` of the request, as it is sent, with its query")
	f.StringVar(&r.host, "host", "", "`HOST` of the request, as it is sent, with a port if it has one")
	f.StringArrayVar(&r.headers, "header", nil, "`NAME=VALUE` of a header of the request; may be repeated")
	f.StringSliceVar(&r.jwt, "jwt", nil, "`CLAIM=VALUE` of the request's token, with commas; a claim that comes twice is a list; none: it has no token")
	f.StringVar(&r.sourceIP, "source-ip", "", "`ADDRESS` that the source connects from (default: those of its pods)")
	f.StringVar(&r.clientIP, "client-ip", "", "client's `ADDRESS` by X-Forwarded-For, as the mesh counts trusted hops; none: there is no such header")
	completeMethods(cmd)
}

func completeMethods(cmd *cobra.Command) {
	methods := []cobra.Completion{"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}
	_ = cmd.RegisterFlagCompletionFunc("method", cobra.FixedCompletions(methods, cobra.ShellCompDirectiveNoFileComp))
}

// none is an attribute that is not there.
const none = "none"

// read makes a class of requests of the flags.
func (r *requestFlags) read(command string) (q policy.Request, err error) {
	say := func(format string, args ...any) { r.words = append(r.words, masked(fmt.Sprintf(format, args...))) }
	if r.method != "" {
		q.Method = policy.Of(r.method)
		say("%s", r.method)
	}
	if r.path != "" {
		if !strings.HasPrefix(r.path, "/") {
			return q, usagef(command, "--path takes a path that starts with /, not %q", r.path)
		}
		q.Path = policy.Of(r.path)
		say("path %s", r.path)
	}
	if r.host != "" {
		q.Host = policy.Of(r.host)
		say("host %s", r.host)
	}
	if err := r.readHeaders(command, &q); err != nil {
		return q, err
	}
	if q.Token, err = r.token(command); err != nil {
		return q, err
	}
	if r.sourceIP != "" {
		a, err := netip.ParseAddr(r.sourceIP)
		if err != nil {
			return q, usagef(command, "--source-ip takes an IP address, not %q", r.sourceIP)
		}
		q.SourceIP = policy.Of(a)
		say("from %s", a)
	}
	switch r.clientIP {
	case "":
	case none:
		q.RemoteIP = policy.Absent[netip.Addr]()
		say("no X-Forwarded-For")
	default:
		a, err := netip.ParseAddr(r.clientIP)
		if err != nil {
			return q, usagef(command, "--client-ip takes an IP address or none, not %q", r.clientIP)
		}
		q.RemoteIP = policy.Of(a)
		say("for client %s", a)
	}
	return q, nil
}

// pair reads NAME=VALUE, or NAME:VALUE as isthmus dial has it.
func pair(text string) (name, value string, ok bool) {
	i := strings.IndexAny(text, "=:")
	if i <= 0 {
		return "", "", false
	}
	return strings.TrimSpace(text[:i]), strings.TrimSpace(text[i+1:]), true
}

func (r *requestFlags) readHeaders(command string, q *policy.Request) error {
	values := map[string]policy.Header{}
	for _, h := range r.headers {
		name, value, ok := pair(h)
		if !ok {
			return usagef(command, "--header takes NAME=VALUE, and one has no name")
		}
		name = strings.ToLower(name)
		if name == "host" {
			return usagef(command, "--header names host: that is --host")
		}
		if q.Headers == nil {
			q.Headers = map[string]policy.Values[policy.Header]{}
		}
		values[name] = append(values[name], value)
		q.Headers[name] = policy.Of(values[name])
		r.words = append(r.words, "header "+name+": "+maskedHeader(name, value))
	}
	return nil
}

// token reads the claims of --jwt. Others may be there too.
func (r *requestFlags) token(command string) (policy.Values[policy.Token], error) {
	if len(r.jwt) == 0 {
		return policy.Values[policy.Token]{}, nil
	}
	if slices.Equal(r.jwt, []string{none}) {
		r.words = append(r.words, "no token")
		return policy.Absent[policy.Token](), nil
	}
	claims := map[string]any{}
	for _, text := range r.jwt {
		name, value, ok := strings.Cut(text, "=")
		if !ok || name == "" {
			return policy.Values[policy.Token]{}, usagef(command, "--jwt takes CLAIM=VALUE with commas, or none: the claims of a token, and not itself")
		}
		switch is := claims[name].(type) {
		case string:
			claims[name] = []any{is, value}
		case []any:
			claims[name] = append(is, value)
		default:
			claims[name] = value
		}
	}
	r.words = append(r.words, "a token with "+masked(strings.Join(r.jwt, ", ")))
	return policy.Of(policy.Token{Claims: claims, Partial: true}), nil
}
