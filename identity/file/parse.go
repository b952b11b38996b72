package file

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
)

// maxFile is how large a file may be; hundreds of roots fit in.
const maxFile = 4 << 20

// read reads a file of bounded size.
func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("identity file: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("identity file: %w", err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("identity file: %s has more than %d bytes", path, maxFile)
	}
	return data, nil
}

// parseCertificates reads PEM; other blocks than certificates are left out, as a key may stand in the same file.
func parseCertificates(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
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

// parseKey reads the first private key of a PEM text.
func parseKey(text []byte) (crypto.Signer, error) {
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
