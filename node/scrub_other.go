//go:build !linux

package node

import "github.com/cockroachdb/pebble/v2/vfs"

// dropCache does nothing where there is no way to.
func dropCache(vfs.File) {}
