package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// command is what the arguments ask for.
type command struct {
	help, version bool
	config        Config
}

// parseCommand reads the arguments, the environment and the file, in that order
// of precedence, and validates what they give together. Its error reports all
// faults of one source, or all that Validate finds.
func parseCommand(args []string, getenv func(string) string) (command, error) {
	flags, err := parseArgs(args)
	if err != nil {
		return command{}, err
	}
	if flags["help"] != "" || flags["version"] != "" {
		return command{help: flags["help"] != "", version: flags["version"] != ""}, nil
	}
	cmd := command{config: defaultConfig()}
	var faults []error
	take := func(name, origin, value string) {
		s, _ := settingNamed(name)
		cmd.config.origin[name] = origin
		if err := s.set(&cmd.config, value); err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", origin, err))
		}
	}
	file := flags["config"]
	if file == "" {
		file = getenv("CAIRN_CONFIG")
	}
	if file != "" {
		if err := readFile(file, take); err != nil {
			return command{}, err
		}
	}
	for _, s := range settings {
		if value := getenv(variable(s.name)); value != "" {
			take(s.name, variable(s.name), value)
		}
	}
	for _, s := range settings {
		if value, given := flags[s.name]; given {
			take(s.name, "-"+s.name, value)
		}
	}
	// A value that could not be read was left at what it was before, so that
	// Validate says nothing about it a second time.
	if err := cmd.config.Validate(); err != nil {
		faults = append(faults, err)
	}
	return cmd, errors.Join(faults...)
}

// parseArgs reads -name value, -name=value and the same with two dashes.
func parseArgs(args []string) (map[string]string, error) {
	flags := map[string]string{}
	var faults []error
	for i := 0; i < len(args); i++ {
		arg := args[i]
		name, isFlag := strings.CutPrefix(arg, "-")
		if !isFlag || name == "" || name == "-" {
			faults = append(faults, fmt.Errorf("%q is not a flag; see cairn-node -help", arg))
			continue
		}
		name, value, inline := strings.Cut(strings.TrimPrefix(name, "-"), "=")
		switch name {
		case "h", "help":
			return map[string]string{"help": "yes"}, nil
		case "version":
			return map[string]string{"version": "yes"}, nil
		}
		if _, known := settingNamed(name); !known && name != "config" {
			faults = append(faults, fmt.Errorf("there is no flag -%s%s; see cairn-node -help", name, suggest(name, "-", settingNames("-"))))
			// Its value, if it has one, must not be reported as a fault too.
			if !inline && i+1 < len(args) && !strings.HasPrefix(args[i+1], "-") {
				i++
			}
			continue
		}
		if !inline {
			if i++; i == len(args) {
				faults = append(faults, fmt.Errorf("-%s needs a value", name))
				break
			}
			value = args[i]
		}
		flags[name] = value
	}
	return flags, errors.Join(faults...)
}

// readFile hands every setting of a YAML file to take. The file is one mapping
// of known keys to plain values; join may be a list.
func readFile(name string, take func(name, origin, value string)) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return fmt.Errorf("-config: %w", err)
	}
	var doc yaml.Node
	if err := yaml.NewDecoder(bytes.NewReader(b)).Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) { // an empty file sets nothing
			return nil
		}
		return fmt.Errorf("-config: %s: %w", name, err)
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return fmt.Errorf("-config: %s: is not a list of settings like \"http: 127.0.0.1:7070\"", name)
	}
	base := filepath.Base(name)
	var faults []error
	seen := map[string]bool{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		k, v := root.Content[i], root.Content[i+1]
		origin := fmt.Sprintf("%s:%d: %s", base, k.Line, k.Value)
		setting := strings.ReplaceAll(k.Value, "_", "-")
		_, known := settingNamed(setting)
		value, ok := scalar(v)
		switch {
		case !known || strings.Contains(k.Value, "-"):
			faults = append(faults, fmt.Errorf("%s: is not a setting%s", origin, suggest(key(k.Value), "", settingNames("_"))))
		case seen[setting]:
			faults = append(faults, fmt.Errorf("%s: is set twice", origin))
		case !ok || (v.Kind == yaml.SequenceNode && setting != "join"):
			faults = append(faults, fmt.Errorf("%s: needs a plain value", origin))
		default:
			take(setting, origin, value)
		}
		seen[setting] = true
	}
	return errors.Join(faults...)
}

// scalar is the text of a plain value, or of a list of them joined by commas.
func scalar(n *yaml.Node) (string, bool) {
	if n.Kind != yaml.SequenceNode {
		return n.Value, n.Kind == yaml.ScalarNode && n.Tag != "!!null"
	}
	parts := make([]string, 0, len(n.Content))
	for _, item := range n.Content {
		if item.Kind != yaml.ScalarNode {
			return "", false
		}
		parts = append(parts, item.Value)
	}
	return strings.Join(parts, ","), true
}

func settingNames(separator string) []string {
	names := make([]string, 0, len(settings))
	for _, s := range settings {
		names = append(names, strings.ReplaceAll(s.name, "-", separator))
	}
	return names
}

// suggest is " (did you mean …?)" if one of the known names is close to name.
func suggest(name, prefix string, known []string) string {
	best, distance := "", 3
	for _, k := range known {
		if d := editDistance(name, k); d < distance {
			best, distance = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %s%s?)", prefix, best)
}

// editDistance is the number of insertions, deletions and replacements between
// two short words.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
