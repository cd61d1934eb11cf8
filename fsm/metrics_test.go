package fsm

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
)

// The machine's metrics register together, and show what it did.
func TestMachine_Collectors(t *testing.T) {
	m := openMachine(t, vfs.NewMem(), nil)
	defer m.Close()
	l := newLedger(t)
	outcomes(t, m, l.logs)
	define(t, l, m, "total", totalDefinition)
	registry := prometheus.NewPedanticRegistry()
	for _, c := range m.Collectors() {
		if err := registry.Register(c); err != nil {
			t.Fatal(err)
		}
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		metric := f.GetMetric()[0]
		got[f.GetName()] = metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
	}
	for name, least := range map[string]float64{
		"cairn_applied_commands_total": 1, "cairn_log_segments": 1, "cairn_log_bytes": 1, "cairn_index_overlay_bytes": 1,
		"cairn_index_write_stalls_total": 0, "cairn_index_compaction_debt_bytes": 0,
		"cairn_projection_lag_events": 0,
	} {
		if value, ok := got[name]; !ok || value < least {
			t.Errorf("%s is %v, %t; want at least %v", name, value, ok, least)
		}
	}
}
