package offline

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

const testSegment = testDir + "/logs/main/gen-000001/log/00000000000000000001.seg"

func dumpTest(t *testing.T, fs vfs.FS, from uint64) (kinds map[PartKind]int, lines string, damaged bool) {
	t.Helper()
	kinds = map[PartKind]int{}
	damaged, err := Dump(fs, testSegment, from, func(p *Part) error {
		kinds[p.Kind]++
		b, err := json.Marshal(p)
		lines += string(b) + "\n"
		return err
	})
	must(t, err)
	return kinds, lines, damaged
}

func TestDump(t *testing.T) {
	mem := vfs.NewMem()
	madeNode(t, mem)
	kinds, lines, damaged := dumpTest(t, mem, 0)
	if damaged || kinds[PartSegment] != 1 || kinds[PartFooter] != 1 || kinds[PartFrame] < 3 || kinds[PartRecord] <= kinds[PartFrame] || kinds[PartDamage] > 0 {
		t.Errorf("parts %v, damaged %v", kinds, damaged)
	}
	for _, want := range []string{
		`{"part":"segment","offset":0,"size":64,"log_id":"` + testLogID + `","segment_size":4096,"base":1}`,
		`{"part":"frame","offset":64,"size":`,
		`"event":{"position":1,"stream":"$log","version":1,`,
		`"data":{"amount":0,"note":`,
		`"hash":"`,
	} {
		if !strings.Contains(lines, want) {
			t.Errorf("no %s in\n%s", want, lines)
		}
	}
	some, lines, _ := dumpTest(t, mem, 5)
	if some[PartRecord] != kinds[PartRecord]-4 || strings.Contains(lines, `"position":4,`) {
		t.Errorf("parts %v, without positions 1 to 4", some)
	}
	size := len(readFile(t, mem, testSegment))
	for at := 64; at < size; at += 7 { // in headers, payloads and the footer
		flip(t, mem, testSegment, int64(at))
		spoiled, lines, damaged := dumpTest(t, mem, 0)
		if footer := at > size-1000 && spoiled[PartFooter] == 1; !footer && (!damaged || !strings.Contains(lines, `"damage":"`)) || spoiled[PartFrame] < kinds[PartFrame]-1 {
			t.Errorf("byte %d: parts %v, damaged %v\n%s", at, spoiled, damaged, lines)
		}
		flip(t, mem, testSegment, int64(at))
	}
	if _, err := Dump(mem, "/none", 0, func(*Part) error { return nil }); err == nil {
		t.Error("a missing file was shown")
	}
}
