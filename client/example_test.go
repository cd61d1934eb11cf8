package client_test

import (
	"context"
	"fmt"
	"os"

	"cairn/client"
	"cairn/event"
)

// A withdrawal that is only made if nobody has changed the account since it
// was read.
func Example() {
	ctx := context.Background()
	c, err := client.New(client.Config{Nodes: []string{"http://127.0.0.1:7010"}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer c.Close()

	for {
		page, err := c.ReadStream(ctx, "account-42", client.ReadOptions{})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
		// … decide from page.Events that there are funds enough …
		withdrawal := []event.Event{{Type: "FundsWithdrawn", Data: []byte(`{"amount":30}`)}}
		result, err := c.Append(ctx, "account-42", withdrawal, client.ExpectVersion(page.Version))
		if client.IsConflict(err) {
			continue // somebody was faster: read again
		}
		fmt.Println(result.Version, err)
		return
	}
}

// Follow all deposits from the first on, for as long as ctx lives.
func ExampleClient_Follow() {
	ctx := context.Background()
	c, err := client.New(client.Config{Nodes: []string{"http://127.0.0.1:7010"}})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer c.Close()

	deposits := event.Filter{Query: event.Query{Items: []event.QueryItem{{Types: []string{"FundsDeposited"}}}}}
	for e, err := range c.Follow(ctx, client.FollowOptions{Filter: deposits}) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
		fmt.Println(e.Position, e.Stream, string(e.Data))
	}
}
