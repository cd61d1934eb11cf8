package eventlog

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"cairn/event"
)

// dumped is what a Dump has shown.
type dumped struct {
	header, footer, frames, spoiled int
	positions                       []uint64
	damage                          []error
	end                             int64
}

func dumpAll(t *testing.T, all map[string][]byte, name string, events []event.Event) (d dumped) {
	t.Helper()
	err := Dump(placeFiles(t, all), "log/"+name, func(p Piece) error {
		d.end = max(d.end, p.Offset+p.Size)
		switch {
		case p.Header != nil:
			d.header++
		case p.Frame != nil:
			d.frames++
		case p.Record != nil && p.Record.Payload != nil:
			d.spoiled++
		case p.Record != nil:
			e := p.Record.Event
			if !sameEvent(&e, &events[e.Position-1]) || p.Record.Salt != testSalt(e.Position) || p.Record.Digest != Digest(p.Record.Salt, e.Data, e.Meta) {
				return fmt.Errorf("record %+v", e)
			}
			d.positions = append(d.positions, e.Position)
		case p.Footer != nil:
			d.footer++
		case p.Damage != nil:
			d.damage = append(d.damage, p.Damage)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDump_ShowsAll(t *testing.T) {
	frames := testScript(5, 16, 3)
	all, events := testFiles(t, 900, frames), allEvents(frames)
	names := slices.Sorted(maps.Keys(all))
	var positions []uint64
	count := 0
	for i, name := range names {
		d := dumpAll(t, all, name, events)
		if d.header != 1 || len(d.damage) > 0 || d.spoiled > 0 || (d.footer == 1) != (i < len(names)-1) || d.end != int64(len(all[name])) {
			t.Errorf("%s: %+v", name, d)
		}
		positions = append(positions, d.positions...)
		count += d.frames
	}
	if count != len(frames) || len(positions) != len(events) || !slices.IsSorted(positions) {
		t.Errorf("%d frames with positions %v", count, positions)
	}
}

// Every byte is damaged, one at a time: it is noticed, what is shown is right,
// and at most the frame with the damage is lost.
func TestDump_EveryByteDamaged(t *testing.T) {
	frames := testScript(5, 16, 3)
	all, events := testFiles(t, 900, frames), allEvents(frames)
	names := slices.Sorted(maps.Keys(all))
	searched, spoiled := 0, 0
	for _, name := range []string{names[1], names[len(names)-1]} {
		whole := dumpAll(t, all, name, events)
		for i := range all[name] {
			broken := maps.Clone(all)
			broken[name] = slices.Clone(all[name])
			broken[name][i] ^= 1 << (i % 8)
			d := dumpAll(t, broken, name, events)
			table := d.header == 1 && whole.footer == 1 && len(d.positions) == len(whole.positions)
			if len(d.damage) == 0 && d.spoiled == 0 && !table { // the offsets of a footer are not looked at
				t.Fatalf("%s, byte %d: unnoticed: %+v", name, i, d)
			}
			if lost := len(whole.positions) - len(d.positions); lost > 3 {
				t.Fatalf("%s, byte %d: %d records lost: %v", name, i, lost, d.damage)
			}
			if d.frames < whole.frames {
				searched++
			}
			spoiled += d.spoiled
		}
	}
	if searched == 0 || spoiled == 0 {
		t.Errorf("searched %d times, %d payloads damaged", searched, spoiled)
	}
}

func TestDump_NotASegment(t *testing.T) {
	for _, b := range [][]byte{nil, []byte("text"), make([]byte, 4096)} {
		d := dumpAll(t, map[string][]byte{"x": b}, "x", nil)
		if len(d.damage) == 0 || d.frames > 0 || d.end != int64(len(b)) {
			t.Errorf("%d bytes: %+v", len(b), d)
		}
	}
	stop := errors.New("stop")
	if err := Dump(placeFiles(t, map[string][]byte{"x": nil}), "log/x", func(Piece) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("Dump = %v, want %v", err, stop)
	}
}

// FuzzDump gives arbitrary bytes to Dump: it ends, and its parts follow each
// other without a gap but for what is inside a frame.
func FuzzDump(f *testing.F) {
	frames := testScript(5, 6, 3)
	for _, b := range testFiles(f, 600, frames) {
		f.Add(b)
		f.Add(b[:len(b)*2/3])
		f.Add(append(slices.Clone(b[:200]), b[100:]...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		fs := placeFiles(t, map[string][]byte{"x": b})
		var at int64 // where the next part begins
		err := Dump(fs, "log/x", func(p Piece) error {
			whole := p.Damage != nil && p.Size == 0 // of a frame that was shown before
			if !whole && p.Offset != at {
				return fmt.Errorf("a part at %d, not at %d", p.Offset, at)
			}
			switch {
			case p.Frame != nil:
				at = p.Offset + frameHeaderSize
			case !whole:
				at = p.Offset + p.Size
			}
			return nil
		})
		if err != nil || at != int64(len(b)) {
			t.Fatalf("Dump ends at %d of %d: %v", at, len(b), err)
		}
	})
}
