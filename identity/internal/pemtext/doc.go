// Package pemtext reads certificates and keys from PEM, as files and authorities bring them. Limits: the caller bounds the text.
package pemtext
