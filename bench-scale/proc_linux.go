package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// memoryOf returns what a process holds in memory now and has held at most, in
// bytes.
func memoryOf(pid int) (resident, most int64, err error) {
	values, err := procNumbers(fmt.Sprintf("/proc/%d/status", pid))
	return values["VmRSS"] << 10, values["VmHWM"] << 10, err
}

// writtenBy returns how many bytes a process has caused to be written to disk.
func writtenBy(pid int) (int64, error) {
	values, err := procNumbers(fmt.Sprintf("/proc/%d/io", pid))
	return values["write_bytes"], err
}

// procNumbers reads a file of lines like "VmRSS:  1234 kB".
func procNumbers(path string) (map[string]int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	values := map[string]int64{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, rest, ok := strings.Cut(lines.Text(), ":")
		if fields := strings.Fields(rest); ok && len(fields) > 0 {
			if n, err := strconv.ParseInt(fields[0], 10, 64); err == nil {
				values[name] = n
			}
		}
	}
	return values, lines.Err()
}

// evict has the pages of a file leave the page cache. What is not yet on disk
// would stay, so it is written first. Pages that a process has mapped stay too.
func evict(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	fd := int(f.Fd())
	return errors.Join(unix.Fdatasync(fd), unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED))
}

// system is the operating system and its version.
func system() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "Linux"
	}
	return "Linux " + unix.ByteSliceToString(u.Release[:])
}
