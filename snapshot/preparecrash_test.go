package snapshot

import (
	"errors"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// prepareAndInstall is what a node does that catches up.
func (n *node) prepareAndInstall(m *model) error {
	if _, err := n.prepare(m, newSender(m)); err != nil {
		return err
	}
	return n.installPrepared(m)
}

// Crashes in the start-up are those of TestCrash_Install: it does not touch what
// a preparation leaves.
func TestCrash_Prepare(t *testing.T) {
	seed := testSeed(t)
	mem, old := oldNode(t)
	sent := bigModel(30)
	var closed, seenOld, seenNew bool
	crashes := crashEverywhere(t, mem, seed, allPercents, func(fs vfs.FS) {
		n := openSerial(t, fs)
		_, err := n.prepare(sent, newSender(sent))
		must(t, err)
		b, err := EncodePrepared(offered(sent))
		must(t, err)
		must(t, n.receive(sent, b, 1000))
		closed = true
		must(t, n.restore())
		must(t, n.check(t, "gen-000002", sent, true, sent))
	}, func(crashed *vfs.MemFS, _ int, at string) {
		n, err := openNode(crashed)
		if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		err = n.check(t, "gen-000002", sent, true, sent)
		switch {
		case err == nil:
			seenNew = true
		case closed:
			t.Fatalf("%s: %v", at, err)
		default:
			seenOld = true
			if oldErr := n.checkOld(t, old); oldErr != nil {
				t.Fatalf("%s: neither the old one (%v) nor the new one (%v)", at, oldErr, err)
			}
		}
	})
	t.Logf("%d crashes", crashes)
	if !closed || !seenOld || !seenNew || crashes < 5*60 {
		t.Errorf("%d crashes, old seen: %v, new seen: %v", crashes, seenOld, seenNew)
	}
}

// After a crash it can be done again, whatever the first try left.
func TestCrash_PrepareAgain(t *testing.T) {
	seed := testSeed(t)
	mem, _ := oldNode(t)
	sent := bigModel(30)
	crashEverywhere(t, mem, seed, []int{50, live}, func(fs vfs.FS) {
		must(t, openSerial(t, fs).prepareAndInstall(sent))
	}, func(crashed *vfs.MemFS, _ int, at string) {
		n := openSerial(t, crashed)
		generation := generationName(generationNumber(n.gens.Current()) + 1)
		if err := errors.Join(n.prepareAndInstall(sent), n.check(t, generation, sent, true, sent)); err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		again := mustOpen(t, crashed.CrashClone(vfs.CrashCloneCfg{}))
		if err := again.check(t, generation, sent, true, sent); err != nil {
			t.Fatalf("%s, again, crash: %v", at, err)
		}
	})
}

func TestError_Prepare(t *testing.T) {
	mem, old := oldNode(t)
	sent := bigModel(30)
	failEverywhere(t, mem, func(fs vfs.FS, raw *vfs.MemFS) func(bool) {
		n := openSerial(t, raw)
		n.use(fs)
		_, err := n.prepare(sent, newSender(sent))
		received := false
		if err == nil {
			var b []byte
			b, err = EncodePrepared(offered(sent))
			must(t, err)
			if err = n.receive(sent, b, 1000); err == nil {
				received = true
				err = n.restore()
			}
		}
		return func(injected bool) {
			if !injected && err != nil {
				t.Error(err)
			}
			afterError(t, n, raw, err, func(n *node) error {
				if received {
					err = n.restore()
				} else {
					err = n.prepareAndInstall(sent)
				}
				if err != nil {
					return err
				}
				// What could not be removed goes at the next start.
				again := mustOpen(t, raw)
				return again.check(t, again.gens.Current(), sent, true, sent)
			}, func(n *node) error {
				if !received && n.checkOld(t, old) == nil {
					return nil
				}
				return n.check(t, "gen-000002", sent, true, sent)
			})
		}
	})
}
