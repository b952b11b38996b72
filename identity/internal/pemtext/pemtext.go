package pemtext

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// Certificates reads all certificates of a text, leaving out other blocks, as a key may stand beside them; damaged ones are an error. More than most are an error; zero is as
// many as there are. None is an error too.
func Certificates(text []byte, most int) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	err := Each(text, func(block *pem.Block) error {
		if block.Type != "CERTIFICATE" {
			return nil
		}
		if most > 0 && len(certs) == most {
			return fmt.Errorf("more than %d certificates", most)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		certs = append(certs, cert)
		return err
	})
	if err == nil && len(certs) == 0 {
		err = errors.New("there is no PEM certificate in it")
	}
	if err != nil {
		return nil, err
	}
	return certs, nil
}

// Each calls f for each block of a text until that fails. A block that is damaged is an error: pem.Decode goes on behind it as if it were not there.
func Each(text []byte, f func(*pem.Block) error) error {
	for n := 1; ; n++ {
		block, rest := pem.Decode(text)
		passed := len(text) - len(rest)
		if block == nil {
			passed = len(text)
		}
		marks := 0
		for line := range bytes.Lines(text[:passed]) {
			line = bytes.TrimLeft(line, "\ufeff \t\r")
			if bytes.HasPrefix(line, []byte("-----BEGIN ")) || bytes.HasPrefix(line, []byte("-----END ")) {
				marks++
			}
		}
		switch {
		case block == nil && marks == 0:
			return nil
		case block == nil || marks != 2:
			return fmt.Errorf("PEM block %d is damaged, cut off or indented", n)
		}
		if err := f(block); err != nil {
			return err
		}
		text = rest
	}
}

// Key reads the first private key of a text: PKCS #8, SEC 1 or PKCS #1, not encrypted.
func Key(text []byte) (crypto.Signer, error) {
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			return nil, errors.New("there is no PEM key in it")
		}
		switch block.Type {
		case "PRIVATE KEY": // PKCS #8
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, err
			}
			if signer, ok := key.(crypto.Signer); ok {
				return signer, nil
			}
			return nil, errors.New("its key cannot sign")
		case "EC PRIVATE KEY": // SEC 1
			key, err := x509.ParseECPrivateKey(block.Bytes)
			if err != nil {
				return nil, err
			}
			return key, nil
		case "RSA PRIVATE KEY": // PKCS #1
			key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
			if err != nil {
				return nil, err
			}
			return key, nil
		case "ENCRYPTED PRIVATE KEY":
			return nil, errors.New("its key is encrypted, and nobody here knows the password")
		}
	}
}
