package fsm

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"cairn/event"
)

// BenchmarkApply applies entries of 100 events of 256 bytes each to a machine
// on disk: what every node spends on an event, savepoints included.
func BenchmarkApply(b *testing.B) {
	for _, streams := range []int{1, 1_000, 1_000_000} {
		b.Run(fmt.Sprintf("%d streams", streams), func(b *testing.B) {
			fs := vfs.Default
			b.Chdir(b.TempDir())
			m := openMachine(b, fs, func(o *Options) { o.SavepointBytes = 16 << 20 })
			defer m.Close()
			outcomes(b, m, []*raft.Log{birth(64 << 20)})
			data := append(append([]byte(`"`), bytes.Repeat([]byte("x"), 254)...), '"')
			n := 0
			b.ReportAllocs()
			for i := uint64(firstIndex); n < b.N; i++ {
				c := event.Command{Kind: event.KindAppend}
				for range 100 {
					n++
					c.Append.Events = append(c.Append.Events, event.Event{
						Stream: fmt.Sprintf("account-%d", n%streams), Type: "Deposited", ID: event.NewID(), Data: data,
						Tags: []string{"customer:9", fmt.Sprintf("day:%d", n/1000)},
					})
				}
				outcomes(b, m, []*raft.Log{{Index: i, Term: 1, Data: event.EncodeEntry(nil, int64(i), [][]byte{event.EncodeCommand(nil, &c)})}})
			}
		})
	}
}

// BenchmarkGuard is what a guarding projection adds to the applying of an event.
func BenchmarkGuard(b *testing.B) {
	for _, guarded := range []bool{false, true} {
		b.Run(fmt.Sprintf("guarded=%v", guarded), func(b *testing.B) {
			m := openMachine(b, vfs.NewMem(), nil)
			defer m.Close()
			l := newLedger(b)
			outcomes(b, m, l.logs)
			if guarded {
				define(b, l, m, "account", accountDefinition)
			}
			var entries []*raft.Log
			for range (b.N + 99) / 100 {
				var commands []event.Command
				for i := range 100 {
					typ := []string{"Deposited", "Withdrawn"}[i%2]
					commands = append(commands, appended(amount(fmt.Sprintf("a-%d", (i/2)%1000), typ, "5")))
				}
				entries = append(entries, l.add(commands...))
			}
			b.ResetTimer()
			for _, e := range entries {
				outcomes(b, m, []*raft.Log{e})
			}
		})
	}
}
