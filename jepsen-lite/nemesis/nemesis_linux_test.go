package nemesis

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// Every kind that the help names can strike, and no other.
func TestStrikes(t *testing.T) {
	all := strikes()
	for _, name := range All() {
		if all[name] == nil {
			t.Errorf("%s can't strike", name)
		}
	}
	if len(all) != len(All()) {
		t.Errorf("%d kinds strike, %d are named", len(all), len(All()))
	}
	if slices.Contains(All(), "") {
		t.Error("a kind without a name")
	}
}

func TestShow(t *testing.T) {
	if got := show(map[string]int64{"files lost": 2, "bytes lost": 7}); got != "7 bytes lost, 2 files lost" {
		t.Errorf("shows %q", got)
	}
	if got := show(nil); got != "" {
		t.Errorf("shows %q of nothing", got)
	}
}

func TestTurn(t *testing.T) {
	file := filepath.Join(t.TempDir(), "clock")
	if err := turn(file, -time.Hour); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "-3600000000000" {
		t.Errorf("the file says %q, %v", text, err)
	}
}
