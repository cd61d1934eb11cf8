package main

import (
	"context"
	"fmt"
	"slices"
)

const memoryGoal = 512 << 20

// noteMemory takes down what each node holds, into now if that is not nil, and
// the most it has held since its start.
func (b *bench) noteMemory(now *[]int64) error {
	if now != nil {
		*now = make([]int64, len(b.c.nodes))
	}
	for i, p := range b.c.nodes {
		resident, most, err := memoryOf(p.pid())
		if err != nil {
			return fmt.Errorf("memory of %s: %w", p.id, err)
		}
		if now != nil {
			(*now)[i] = resident
		}
		b.memory[i] = max(b.memory[i], most)
	}
	return nil
}

// measureMemory tells of what the nodes held when the row was reached, and the
// most they held since the row before.
func (b *bench) measureMemory(context.Context) ([]line, error) {
	if err := b.noteMemory(nil); err != nil {
		return nil, err
	}
	values := map[string]float64{}
	text := ""
	for i := range b.c.nodes {
		if i > 0 {
			text += "; "
		}
		text += fmt.Sprintf("%s, peak %s", mib(b.loaded[i]), mib(b.memory[i]))
		values[fmt.Sprintf("node_%d_loaded_bytes", i+1)] = float64(b.loaded[i])
		values[fmt.Sprintf("node_%d_peak_bytes", i+1)] = float64(b.memory[i])
	}
	return []line{{
		Name: "resident memory after the load, peak of the row", Goal: "under 512 MiB", Text: text, Values: values,
		Verdict: verdict(slices.Max(b.memory) < memoryGoal),
	}}, nil
}
