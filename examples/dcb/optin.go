package dcb

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"time"

	"cairn/client"
	"cairn/event"
)

// What a token may be refused for.
var (
	ErrNoToken      = errors.New("there is no such token for this address")
	ErrTokenUsed    = errors.New("the token was used before")
	ErrTokenExpired = errors.New("the token is too old")
)

// TokenLife is how long a token may be used.
const TokenLife = time.Hour

// SignUp notes that somebody wants to sign up with a mail address, and returns
// the token to send there. Only a hash of it goes into the log: events stay,
// and who can read them should not be able to confirm.
func SignUp(ctx context.Context, c *client.Client, mail string) (token string, err error) {
	token = rand.Text()
	_, err = c.Append(ctx, "signup-"+hashOf(mail+" "+token), []event.Event{{
		Type: "SignUpInitiated",
		Tags: []string{tokenTag(mail, token)},
	}})
	return token, err
}

// Confirm completes the sign-up that a token was sent for, once, within
// TokenLife. The boundary is the pair of address and token, as one tag: of
// several that confirm with the same token at once, one succeeds.
func Confirm(ctx context.Context, c *client.Client, mail, token string, now time.Time) error {
	type state struct {
		initiated time.Time
		used      bool
	}
	tag := tokenTag(mail, token)
	_, err := client.Decide(ctx, c, client.Decider[state]{
		Query: event.Query{Items: []event.QueryItem{{Tags: []string{tag}}}},
		Fold: func(s *state, e *event.Event) error {
			switch e.Type {
			case "SignUpInitiated":
				s.initiated = time.Unix(0, e.Time)
			case "SignUpConfirmed":
				s.used = true
			}
			return nil
		},
		Decide: func(s *state) ([]event.Event, error) {
			switch {
			case s.initiated.IsZero():
				return nil, ErrNoToken
			case s.used:
				return nil, ErrTokenUsed
			case now.Sub(s.initiated) > TokenLife:
				return nil, ErrTokenExpired
			}
			return []event.Event{{Stream: "signup-" + hashOf(mail+" "+token), Type: "SignUpConfirmed", Tags: []string{tag, "mail:" + mail}}}, nil
		},
	})
	return err
}

func tokenTag(mail, token string) string { return "opt-in:" + hashOf(mail+" "+token) }

func hashOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
