package main

import (
	"fmt"
	"strings"
	"time"
)

// entry is what a line of the log says; as JSON it is the data of an event.
type entry struct {
	Status           string `json:"status,omitempty"`
	InstalledVersion string `json:"installed_version,omitempty"`
	AvailableVersion string `json:"available_version,omitempty"`

	Kind     string `json:"kind,omitempty"` // of a run: archives or packages
	Command  string `json:"command,omitempty"`
	File     string `json:"file,omitempty"`
	Decision string `json:"decision,omitempty"` // about a configuration file: install or keep

	Time         string `json:"time"` // of the machine's clock; the log names no time zone
	Package      string `json:"package,omitempty"`
	Architecture string `json:"architecture,omitempty"`

	typ string // the event's
}

func (e *entry) qualifiedName() string {
	if e.Architecture == "" {
		return e.Package
	}
	return e.Package + ":" + e.Architecture
}

// actions are the lines `ACTION PACKAGE INSTALLED AVAILABLE`, which dpkg writes
// as it begins something.
var actions = map[string]string{
	"install":   "InstallStarted",
	"upgrade":   "UpgradeStarted",
	"configure": "ConfigureStarted",
	"trigproc":  "TriggerProcessingStarted",
	"disappear": "DisappearanceStarted",
	"remove":    "RemovalStarted",
	"purge":     "PurgeStarted",
}

// timeForm is how times stand in events: there is no time zone in the log.
const timeForm = "2006-01-02T15:04:05"

// parse reads a line. Their forms are described in dpkg(1), under --log.
func parse(line string) (entry, error) {
	f := strings.Fields(line)
	if len(f) < 3 {
		return entry{}, fmt.Errorf("%q has no time and action", line)
	}
	at, err := time.Parse(time.DateTime, f[0]+" "+f[1])
	if err != nil {
		return entry{}, fmt.Errorf("%q begins with no time", line)
	}
	e := entry{Time: at.Format(timeForm)}
	action, rest := f[2], f[3:]
	switch {
	case action == "startup" && len(rest) == 2:
		e.typ, e.Kind, e.Command = "RunStarted", rest[0], rest[1]
	case action == "status" && len(rest) == 3:
		e.typ, e.Status, e.InstalledVersion = "StatusChanged", rest[0], version(rest[2])
		err = e.setPackage(rest[1])
	case action == "conffile" && len(rest) >= 2:
		e.typ, e.Decision = "ConffileDecided", rest[len(rest)-1]
		// A file name may hold spaces: take it as it stands in the line.
		_, after, _ := strings.Cut(line, " conffile ")
		e.File = strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(after), e.Decision))
	case actions[action] != "" && len(rest) == 3:
		e.typ, e.InstalledVersion, e.AvailableVersion = actions[action], version(rest[1]), version(rest[2])
		err = e.setPackage(rest[0])
	default:
		return entry{}, fmt.Errorf("%q is not a line that dpkg writes", line)
	}
	return e, err
}

func (e *entry) setPackage(s string) error {
	e.Package, e.Architecture, _ = strings.Cut(s, ":")
	if e.Package == "" {
		return fmt.Errorf("%q names no package", s)
	}
	return nil
}

// version leaves out what stands for no version.
func version(s string) string {
	if s == "<none>" {
		return ""
	}
	return s
}
