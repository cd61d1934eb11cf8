//go:build !linux

package main

import (
	"errors"
	"runtime"
)

func memoryOf(int) (resident, most int64, err error) { return 0, 0, errors.ErrUnsupported }

func writtenBy(int) (int64, error) { return 0, errors.ErrUnsupported }

func evict(string) error { return errors.ErrUnsupported }

func system() string { return runtime.GOOS }
