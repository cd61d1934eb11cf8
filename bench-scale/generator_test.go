package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// sentEvent is an event of an append as a node sees it.
type sentEvent struct {
	Stream, Type, Data string
	Tags               []string
}

func decodeBody(t *testing.T, body []byte) (events []sentEvent, conditions []json.RawMessage) {
	t.Helper()
	var a struct {
		Events     []sentEvent
		Conditions []json.RawMessage
	}
	if err := json.Unmarshal(body, &a); err != nil {
		t.Fatalf("%v: %.200s", err, body)
	}
	return a.Events, a.Conditions
}

func TestGenerator_StreamsTagsAndSizes(t *testing.T) {
	const events, size = 40_000, 256
	g := newGenerator([]int{20_000, events}, size)
	perStream := map[string]int{}
	sides := map[string]int{}
	var body []byte
	for n := range events / batchEvents {
		var tagBytes int
		body, tagBytes = g.batch(body, n)
		sent, _ := decodeBody(t, body)
		if len(sent) != batchEvents {
			t.Fatalf("append %d has %d events", n, len(sent))
		}
		sum, inAppend := 0, map[string]bool{}
		for _, e := range sent {
			if len(e.Tags) != 3 || !strings.HasPrefix(e.Tags[0], "customer:") || !strings.HasPrefix(e.Tags[1], "region:") {
				t.Fatalf("tags %q", e.Tags)
			}
			if got := len(e.Data) + len(`""`); got != size || e.Type != "Measured" {
				t.Fatalf("%d bytes of data, type %q", got, e.Type)
			}
			if n > minStreams/newStreams && inAppend[e.Stream] {
				t.Errorf("append %d has stream %s twice", n, e.Stream)
			}
			inAppend[e.Stream] = true
			perStream[e.Stream]++
			sides[e.Tags[2]]++
			sum += len(strings.Join(e.Tags, ""))
		}
		if sum != tagBytes {
			t.Fatalf("append %d: tags of %d bytes, said to be %d", n, sum, tagBytes)
		}
	}
	for row := range 2 {
		for i := range hundreds {
			name := string(appendHundred(nil, row, i))
			if got := perStream[name]; got != hundredSize {
				t.Errorf("%s has %d events", name, got)
			}
			delete(perStream, name)
		}
	}
	if got, want := len(perStream), events/10; got != want {
		t.Errorf("%d streams, want %d", got, want)
	}
	left, right := sides["left:1"], sides["right:1"]
	if left+right != events || left < events*48/100 || right < events*48/100 {
		t.Errorf("%d left, %d right", left, right)
	}
}

func TestGenerator_SameAppendEveryTime(t *testing.T) {
	first, _ := newGenerator([]int{20_000}, 100).batch(nil, 77)
	again, _ := newGenerator([]int{20_000}, 100).batch(nil, 77)
	other, _ := newGenerator([]int{20_000}, 100).batch(nil, 78)
	if string(first) != string(again) || string(first) == string(other) {
		t.Error("append 77 is not the same twice, or the same as append 78")
	}
}

func TestDueHundreds_SpreadOverTheWholeLoad(t *testing.T) {
	for _, events := range []int{20_000, 1_000_000, 20_000_000} {
		count, last := [hundreds]int{}, 0
		for n := range events/batchEvents + 10 {
			for _, i := range dueHundreds(n, events) {
				count[i]++
				last = n
			}
		}
		for i, got := range count {
			if got != hundredSize {
				t.Errorf("of %d events stream %d has %d", events, i, got)
			}
		}
		if batches := events / batchEvents; last < batches*99/100 || last >= batches {
			t.Errorf("the last one is in append %d of %d", last, batches)
		}
	}
}

func TestGenerator_Single(t *testing.T) {
	g := newGenerator(nil, 64)
	events, conditions := decodeBody(t, g.single(nil, "s", likeTheLoad, "number-0000001", neverMet))
	if len(events) != 1 || events[0].Stream != "s" || len(events[0].Tags) != 3 || len(events[0].Data) != 62 || len(conditions) != 1 {
		t.Errorf("%+v, %s", events, conditions)
	}
	events, conditions = decodeBody(t, g.single(nil, "s", "", "", ""))
	if len(events) != 1 || len(events[0].Tags) != 0 || len(conditions) != 0 {
		t.Errorf("%+v, %s", events, conditions)
	}
}

func BenchmarkGenerator_Batch(b *testing.B) {
	g := newGenerator([]int{1_000_000, 20_000_000}, 256)
	var body []byte
	for n := range b.N {
		body, _ = g.batch(body, n)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batchEvents), "ns/event")
}
