package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// Metrics of a node that are looked at.
const (
	metricPosition         = "cairn_applied_position"
	metricSavepoints       = "cairn_savepoints_total"
	metricSavepointSeconds = "cairn_savepoint_seconds_total"
	metricCommits          = "cairn_commit_seconds_count"
	metricCommitSeconds    = "cairn_commit_seconds_sum"
)

// scrape returns those metrics of a node that have no labels, by name.
func (c *cluster) scrape(ctx context.Context, p *process) (map[string]float64, error) {
	a, err := c.get(ctx, p, "/metrics")
	if err != nil {
		return nil, err
	}
	values := parseMetrics(string(a.body))
	for _, name := range []string{metricPosition, metricSavepoints, metricSavepointSeconds, metricCommits, metricCommitSeconds} {
		if _, ok := values[name]; !ok {
			return nil, fmt.Errorf("%s: /metrics has no %s", p.id, name)
		}
	}
	return values, nil
}

func parseMetrics(text string) map[string]float64 {
	values := map[string]float64{}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || name == "#" || strings.Contains(name, "{") {
			continue
		}
		if v, err := strconv.ParseFloat(value, 64); err == nil {
			values[name] = v
		}
	}
	return values
}
