package dcb

import (
	"context"
	"errors"
	"strings"

	"github.com/google/uuid"

	"cairn/client"
	"cairn/event"
)

// RecordOnce records something under a token that its sender chose, such as one
// that a web form carries, and returns its name. A double click, a second tab
// or a repeated request come with the same token and get the name of the first
// record; nothing is added.
//
// The ids of events make a repeated append safe as long as it goes to the same
// stream. Here every record is a stream of its own, with a new name each time.
// So a condition says it: no event with this token, anywhere. It is a bare
// condition: there is nothing to read or to decide first.
func RecordOnce(ctx context.Context, c *client.Client, token string, data []byte) (record string, repeated bool, err error) {
	tag := "token:" + token
	record = uuid.NewString()
	_, err = c.AppendMany(ctx, event.Append{
		Events: []event.Event{{Stream: "record-" + record, Type: "Recorded", Tags: []string{tag}, Data: data}},
		Conditions: []event.Condition{{
			Kind:  event.NoMatch,
			Query: event.Query{Items: []event.QueryItem{{Types: []string{"Recorded"}, Tags: []string{tag}}}},
		}},
	})
	var refused *client.Problem
	if !errors.As(err, &refused) || refused.Code != client.CodeConditionFailed {
		return record, false, err
	}
	// The refusal says where the first record is.
	first, err := c.Event(ctx, refused.ConflictingPosition)
	if err != nil {
		return "", true, err
	}
	return strings.TrimPrefix(first.Stream, "record-"), true, nil
}
