package projection

import (
	"errors"
	"math"
)

// ErrBudget says that an append makes projections do more than one append may.
// It depends on the events, the rows and the definitions alone.
var ErrBudget = errors.New("this append makes projections do too much: split it")

// maxBudget is how many steps of evaluation one append may take, and of reading
// and writing rows: 16 bytes of them are a step.
const maxBudget = 1 << 22

// Budget is what is left to be done for one append. The zero Budget is used up;
// one goroutine may use it.
type Budget struct{ left int }

// NewBudget returns what one append may do.
func NewBudget() *Budget { return &Budget{maxBudget} }

// most is how many steps an evaluation may take.
func (b *Budget) most() int {
	if b == nil {
		return math.MaxInt
	}
	return b.left
}

// textSteps is what reading or writing JSON of that size costs.
func textSteps(b []byte) int { return 1 + len(b)>>4 }

// spend takes steps off what is left. A nil Budget has no end.
func (b *Budget) spend(steps int) error {
	if b == nil {
		return nil
	}
	if b.left -= steps; b.left < 0 {
		b.left = 0
		return ErrBudget
	}
	return nil
}
