package eventlog

import (
	"testing"

	"cairn/event"

	"pgregory.net/rapid"
)

// The texts of events share blocks of memory, and none is overwritten by those
// that are decoded later.
func TestDecoder_SharedBlocks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := decoder{block: rapid.SampledFrom([]int{0, 256, textBlock}).Draw(t, "block")}
		var want, got []event.Event
		var header []byte
		for range rapid.IntRange(1, 60).Draw(t, "events") {
			e := drawEvent(t)
			e.Data, e.Meta = nil, nil
			header, _ = appendHeader(header[:0], &e)
			var decoded event.Event
			if err := d.event(header, &decoded); err != nil {
				t.Fatal(err)
			}
			want, got = append(want, e), append(got, decoded)
		}
		for i := range got {
			if !sameEvent(&got[i], &want[i]) {
				t.Fatalf("event %d became %+v, was %+v", i, got[i], want[i])
			}
		}
	})
}
