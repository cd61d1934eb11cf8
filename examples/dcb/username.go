package dcb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"cairn/client"
	"cairn/event"
)

// ErrNameTaken is why a name can't be claimed.
var ErrNameTaken = errors.New("the name is taken")

// Retention is how long a name that was given free stays reserved, so that
// nobody passes for who had it before.
const Retention = 3 * 24 * time.Hour

// holding is what is known of a name: who has it, or until when nobody may.
type holding struct {
	user  string
	until time.Time
}

// ClaimName gives a name to a user, if nobody has it and nobody had it within
// Retention before now. Its boundary is the name: the query finds what happened
// to it in the streams of all users, and the append is refused if something has
// happened since. Claims of other names do not disturb.
//
// A user has one name: the one they had is given free in the same append. The
// end of Retention is judged by the caller's clock, which is good enough for
// days; price.go shows how the log's own time decides.
func ClaimName(ctx context.Context, c *client.Client, user, name string, now time.Time) error {
	nameTag, userTag := "username:"+name, "user:"+user
	type state struct {
		name    holding
		current string // the user's name so far
	}
	_, err := client.Decide(ctx, c, client.Decider[state]{
		Query: event.Query{Items: []event.QueryItem{{Tags: []string{nameTag}}, {Tags: []string{userTag}}}},
		Fold: func(s *state, e *event.Event) error {
			if has(e, nameTag) {
				s.name.add(e)
			}
			if has(e, userTag) {
				s.current = ""
				if e.Type == "UsernameClaimed" {
					s.current = nameOf(e)
				}
			}
			return nil
		},
		Decide: func(s *state) ([]event.Event, error) {
			switch {
			case s.current == name:
				return nil, nil // it is theirs already
			case s.name.user != "":
				return nil, ErrNameTaken
			case now.Before(s.name.until):
				return nil, fmt.Errorf("%w until %s", ErrNameTaken, s.name.until.UTC().Format(time.RFC3339))
			}
			var events []event.Event
			if s.current != "" {
				events = append(events, naming("UsernameReleased", user, s.current))
			}
			return append(events, naming("UsernameClaimed", user, name)), nil
		},
	})
	return err
}

// ReleaseName gives the name of a user free; one without a name is left alone.
func ReleaseName(ctx context.Context, c *client.Client, user string) error {
	_, err := client.Decide(ctx, c, client.Decider[string]{
		Streams: []string{"user-" + user},
		Fold: func(current *string, e *event.Event) error {
			*current = ""
			if e.Type == "UsernameClaimed" {
				*current = nameOf(e)
			}
			return nil
		},
		Decide: func(current *string) ([]event.Event, error) {
			if *current == "" {
				return nil, nil
			}
			return []event.Event{naming("UsernameReleased", user, *current)}, nil
		},
	})
	return err
}

func naming(typ, user, name string) event.Event {
	return event.Event{Stream: "user-" + user, Type: typ, Tags: []string{"user:" + user, "username:" + name}}
}

func (h *holding) add(e *event.Event) {
	switch e.Type {
	case "UsernameClaimed":
		*h = holding{user: e.Stream}
	case "UsernameReleased":
		// The log's own time: it is the same for everybody who reads.
		*h = holding{until: time.Unix(0, e.Time).Add(Retention)}
	}
}

func nameOf(e *event.Event) string { return tagValue(e, "username:") }

// tagValue returns what follows a prefix in the first tag that has it.
func tagValue(e *event.Event, prefix string) string {
	for _, tag := range e.Tags {
		if len(tag) >= len(prefix) && tag[:len(prefix)] == prefix {
			return tag[len(prefix):]
		}
	}
	return ""
}

func has(e *event.Event, tag string) bool { return slices.Contains(e.Tags, tag) }
