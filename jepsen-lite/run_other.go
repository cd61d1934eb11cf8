//go:build !linux

package main

import (
	"context"
	"errors"
	"io"
)

func experiment(context.Context, *settings, io.Writer) error {
	return errors.New("the namespaces that nodes run in are Linux's; -check works anywhere")
}
