package pemtext

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
)

// Certificates reads all certificates of a text, leaving out other blocks, as a key may stand beside them. More than most are an error; zero is as
// many as there are. None is an error too.
func Certificates(text []byte, most int) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		if most > 0 && len(certs) == most {
			return nil, fmt.Errorf("more than %d certificates", most)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("there is no PEM certificate in it")
	}
	return certs, nil
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
