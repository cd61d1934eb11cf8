package dcb

import (
	"context"
	_ "embed"
	"encoding/json"
	"time"

	"cairn/client"
	"cairn/event"
	"cairn/examples/internal/define"
)

//go:embed price.yaml
var priceYAML []byte

// DefinePrices makes the guard hold that Order relies on.
func DefinePrices(ctx context.Context, c *client.Client) error {
	return define.Apply(ctx, c, priceYAML)
}

// SetPrice gives a product a price. For grace from now on it may still be
// ordered at the one it has so far: customers look at a page for a while.
func SetPrice(ctx context.Context, c *client.Client, product string, cents int64, grace time.Duration) error {
	data, err := json.Marshal(map[string]any{"product": product, "price": cents, "grace": grace.String()})
	if err != nil {
		return err
	}
	_, err = c.Append(ctx, "product-"+product, []event.Event{{Type: "ProductPriced", Data: data}})
	return err
}

// Line is a product at the price that the customer has seen.
type Line struct {
	Product string `json:"product"`
	Price   int64  `json:"price"` // cents
}

// Order places an order of any number of products. If one of them can't be had
// at that price any more, nothing is ordered: the error is one for which
// client.IsGuardFailed holds, and its Problem names the product (Key).
//
// A guard fits better here than client.Decide: nothing has to be read, a
// product that many order at once makes nobody try again, and "now" is the time
// the log gives to the order, whatever the clocks of clients say.
func Order(ctx context.Context, c *client.Client, order string, lines []Line) error {
	a := event.Append{Conditions: []event.Condition{{Kind: event.StreamMissing, Stream: "order-" + order}}}
	for _, line := range lines {
		data, err := json.Marshal(line)
		if err != nil {
			return err
		}
		a.Events = append(a.Events, event.Event{Stream: "order-" + order, Type: "ProductOrdered", Data: data})
	}
	_, err := c.AppendMany(ctx, a)
	return err
}
