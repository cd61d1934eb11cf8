package eventlog

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// checkAll checks a log and returns what was found.
func checkAll(t *testing.T, all map[string][]byte, through uint64) (found []string, whole []SegmentInfo) {
	t.Helper()
	whole, err := Check(CheckOptions{FS: placeFiles(t, all), Dir: "log", Through: through, Found: func(err error) {
		found = append(found, err.Error())
	}})
	if err != nil {
		t.Fatal(err)
	}
	return found, whole
}

// Each bit of a log that is flipped is found; in what stands after the
// savepoint nothing is.
func TestCheck_EveryBit(t *testing.T) {
	frames := testScript(5, 16, 3)
	all := testFiles(t, 900, frames)
	names := slices.Sorted(maps.Keys(all))
	for _, through := range []uint64{frames[len(frames)-1].last(), frames[9].last()} {
		if found, whole := checkAll(t, all, through); len(found) > 0 || len(whole) == 0 {
			t.Fatalf("through %d: found %v in a whole log, %d segments", through, found, len(whole))
		}
		for _, name := range names {
			limit := promised(t, all, name, through)
			for i := 0; i < len(all[name]); i += 1 + stride/20 {
				spoiled := maps.Clone(all)
				spoiled[name] = slices.Clone(all[name])
				spoiled[name][i] ^= 1 << (i % 8)
				found, _ := checkAll(t, spoiled, through)
				if bad := i < limit; bad != (len(found) > 0) {
					t.Fatalf("through %d: byte %d of %s, of which %d are promised: found %v", through, i, name, limit, found)
				}
			}
		}
	}
}

// Damage in one file does not hide that of another.
func TestCheck_GoesOn(t *testing.T) {
	frames := testScript(5, 40, 3)
	all := testFiles(t, 900, frames)
	names := slices.Sorted(maps.Keys(all))
	if len(names) < 6 {
		t.Fatalf("%d files", len(names))
	}
	all[names[1]][400] ^= 1
	all[names[2]] = all[names[2]][:500]
	delete(all, names[4])
	found, whole := checkAll(t, all, frames[len(frames)-1].last())
	want := []string{names[1], names[2], names[4]}
	if len(found) != len(want) {
		t.Fatalf("found %d: %v", len(found), found)
	}
	for i, name := range want {
		if !strings.Contains(found[i], name) {
			t.Errorf("found %s, want something about %s", found[i], name)
		}
	}
	if len(whole) != len(names)-4 {
		t.Errorf("%d segments are whole", len(whole))
	}
}

func TestCheck_Missing(t *testing.T) {
	frames := testScript(5, 40, 3)
	last := frames[len(frames)-1].last()
	for _, test := range []struct {
		name   string
		spoil  func(all map[string][]byte, names []string)
		want   string
		beyond uint64
	}{
		{"the first", func(all map[string][]byte, names []string) { delete(all, names[0]) }, "missing", 0},
		{"the last", func(all map[string][]byte, names []string) { delete(all, names[len(names)-1]) }, "is missing", 0},
		{"all", func(all map[string][]byte, _ []string) { clear(all) }, "missing", 0},
		{"the end", func(map[string][]byte, []string) {}, "the log ends", 1},
		{"a footer", func(all map[string][]byte, names []string) { all[names[0]] = all[names[0]][:300] }, "footer", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			all := testFiles(t, 900, frames)
			test.spoil(all, slices.Sorted(maps.Keys(all)))
			if found, _ := checkAll(t, all, last+test.beyond); len(found) != 1 || !strings.Contains(found[0], test.want) {
				t.Errorf("found %q, want something with %q", found, test.want)
			}
		})
	}
	t.Run("files of another log", func(t *testing.T) {
		all, other := testFiles(t, 900, frames), testFiles(t, 901, frames)
		names := slices.Sorted(maps.Keys(all))
		all[names[1]] = other[names[1]]
		if found, _ := checkAll(t, all, last); len(found) == 0 || !strings.Contains(found[0], "log id or segment size") {
			t.Errorf("found %q", found)
		}
	})
	t.Run("ended early", func(t *testing.T) {
		enough := errors.New("enough")
		_, err := Check(CheckOptions{FS: placeFiles(t, testFiles(t, 900, frames)), Dir: "log", Through: last,
			Found: func(err error) { t.Error(err) }, Read: func(n int64) error { return fmt.Errorf("%w after %d", enough, n) }})
		if !errors.Is(err, enough) {
			t.Errorf("Check = %v", err)
		}
	})
}
