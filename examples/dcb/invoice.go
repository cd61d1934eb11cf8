package dcb

import (
	"context"
	"encoding/json"
	"errors"

	"cairn/client"
	"cairn/event"
)

// IssueInvoice issues an invoice with the next number and returns it. Numbers
// begin at 1 and have no gaps: an invoice that is not issued takes none.
//
// It needs no query and no fold. All invoices are one stream, whose versions
// are counted without gaps, so the number is the version. The condition makes
// sure that the number which is written into the data is the one it gets. A
// refusal says which version the stream has, so nothing is read again.
func IssueInvoice(ctx context.Context, c *client.Client, order string, cents int64) (number uint64, err error) {
	issued, err := c.Head(ctx, "invoices")
	if err != nil {
		return 0, err
	}
	for {
		number = issued + 1
		data, err := json.Marshal(map[string]any{"number": number, "order": order, "cents": cents})
		if err != nil {
			return 0, err
		}
		_, err = c.Append(ctx, "invoices", []event.Event{{
			Type: "InvoiceIssued",
			Tags: []string{"order:" + order},
			Data: data,
		}}, client.ExpectVersion(issued))
		var refused *client.Problem
		if !errors.As(err, &refused) || refused.Code != client.CodeConditionFailed {
			return number, err
		}
		issued = refused.Actual
	}
}
