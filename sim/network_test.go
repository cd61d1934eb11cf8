package sim

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"
)

const a, b = "10.0.0.1", "10.0.0.2"

func twoEnds() (*network, *endpoint, *endpoint) {
	n := newNetwork(rand.New(rand.NewPCG(1, 1)))
	return n, n.listen(a, "n1"), n.listen(b, "n2")
}

func TestNetwork_CutHoldsUntilHealed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, from, to := twoEnds()
		n.set(map[way]quality{{a, b}: {cut: true}})
		go func() {
			time.Sleep(3 * time.Second)
			n.set(map[way]quality{})
		}()
		began := time.Now()
		if got, err := from.send(nil, nil, b); err != nil || got != to || time.Since(began) < 3*time.Second {
			t.Errorf("arrived at %v after %s, %v", got, time.Since(began), err)
		}
		n.set(map[way]quality{{a, b}: {cut: true}})
		done, _ := after(time.Second)
		if _, err := from.send(done, nil, b); !errors.Is(err, errTimeout) {
			t.Errorf("a sender that gives up: %v", err)
		}
		if _, err := to.send(nil, nil, a); err != nil {
			t.Errorf("the other way: %v", err)
		}
	})
}

// What a run sends or answers after its death is not heard.
func TestNetwork_TheDeadAreSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, from, to := twoEnds()
		to.Serve(func(context.Context, string, []byte) ([]byte, error) {
			to.kill()
			return []byte("too late"), nil
		})
		if answer, err := from.Call(t.Context(), string(raftAddress(b)), "x", nil); err == nil {
			t.Errorf("the dead answer %q", answer)
		}
		if _, err := to.send(nil, nil, a); !errors.Is(err, errReset) {
			t.Errorf("the dead send: %v", err)
		}
		next := n.listen(b, "n2")
		if got, err := from.send(nil, nil, b); err != nil || got != next {
			t.Errorf("the next run is not found: %v", err)
		}
	})
}
