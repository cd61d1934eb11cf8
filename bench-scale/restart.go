package main

import (
	"context"
	"syscall"
	"time"
)

const restartGoal = 3 * time.Second

// measureRestart kills all nodes with the load just behind them.
func (b *bench) measureRestart(ctx context.Context) ([]line, error) {
	took, err := b.c.restart(ctx, syscall.SIGKILL)
	if err != nil {
		return nil, err
	}
	return []line{{
		Name: "restart to ready after SIGKILL", Goal: "under 3 s", Text: short(took),
		Values: map[string]float64{"seconds": took.Seconds()}, Verdict: verdict(took < restartGoal),
	}}, nil
}
