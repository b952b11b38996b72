package rules

import "slices"

// envoyLocations are where Envoy looks for tokens when nobody says otherwise.
func envoyLocations() []Location { return append(bearer(), Location{Query: "access_token"}) }

// modeOf is the Mode that a field says.
func modeOf(f *fields, name string, otherwise Mode, words map[string]Mode) Mode {
	if !f.has(name) {
		return otherwise
	}
	mode, known := words[f.str(name)]
	if !known {
		f.unsure(name)
	}
	return mode
}

// claimHeaders reads a list of claims that are written to headers.
func claimHeaders(f *fields, list, claim, header string) []Header {
	var headers []Header
	for _, c := range f.each(list) {
		headers = append(headers, Header{Name: c.str(header), From: FromClaim, What: c.str(claim), Overwrites: Yes})
	}
	return headers
}

// addClaims adds the headers that an Envoy writes from claims, a list for each provider. It takes away what clients send under the names of the
// providers that it asks; which it asks, where there are several, hangs on the token.
func addClaims(d *doc, f *fields, part string, claims [][]Header) {
	addClaimsOf(d, f, part, claims, claims)
}

// addClaimsOf is addClaims for some of the providers.
func addClaimsOf(d *doc, f *fields, part string, some, claims [][]Header) {
	var all []Header
	for _, list := range some {
		for _, h := range list {
			for _, other := range claims {
				if !slices.ContainsFunc(other, func(o Header) bool { return o.Name == h.Name }) {
					h.Overwrites = Unsure
				}
			}
			all = append(all, h)
		}
	}
	if len(all) > 0 {
		d.add(f, part, Rule{Headers: &Headers{Writes: all}})
	}
}
