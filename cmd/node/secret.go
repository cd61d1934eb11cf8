package main

import (
	"bytes"
	"fmt"
	"os"
)

// minSecret is the least length of a cluster's secret: 128 bits, if they are
// random.
const minSecret = 16

// readSecret reads the cluster's secret. White space around it does not count,
// so that an editor's last newline makes no difference between two nodes.
func readSecret(name string) ([]byte, error) {
	if name == "" {
		return nil, nil
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("-secret-file: %w", err)
	}
	b = bytes.TrimSpace(b)
	if len(b) < minSecret {
		return nil, fmt.Errorf("-secret-file: %s has %d bytes; at least %d are needed, such as those of: head -c 32 /dev/urandom | base64", name, len(b), minSecret)
	}
	return b, nil
}
