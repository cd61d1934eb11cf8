package lab

import (
	"fmt"
	"slices"
	"testing"
)

func TestOneWay(t *testing.T) {
	got := OneWay([]int{1, 2}, []int{2, Client})
	want := []Link{{1, 2}, {1, Client}, {2, Client}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestBetween(t *testing.T) {
	got := Between([]int{3}, []int{1, 2})
	want := []Link{{3, 1}, {3, 2}, {1, 3}, {2, 3}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestRing_EachSeesAnotherMajority(t *testing.T) {
	for n := 3; n <= 9; n++ {
		nodes := make([]int, n)
		for i := range nodes {
			nodes[i] = n - i // any order
		}
		cut := map[Link]bool{}
		for _, l := range Ring(nodes) {
			cut[l] = true
		}
		views := map[string]int{}
		for _, a := range nodes {
			var view []int
			for b := 1; b <= n; b++ {
				if cut[Link{a, b}] != cut[Link{b, a}] {
					t.Errorf("%d nodes: only one way between %d and %d is cut", n, a, b)
				}
				if !cut[Link{a, b}] {
					view = append(view, b)
				}
			}
			if len(view) < n/2+1 {
				t.Errorf("%d nodes: %d sees only %v", n, a, view)
			}
			if other, taken := views[fmt.Sprint(view)]; taken {
				t.Errorf("%d nodes: %d and %d both see %v", n, a, other, view)
			}
			views[fmt.Sprint(view)] = a
		}
	}
}

func TestRing_FewNodes(t *testing.T) {
	for n := range 3 {
		if links := Ring([]int{1, 2}[:n]); links != nil {
			t.Errorf("%d nodes: got %v, want none", n, links)
		}
	}
}
