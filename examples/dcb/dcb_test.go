package dcb

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"cairn/client"
	"cairn/event"
	"cairn/examples/internal/testnode"
)

// Each example runs against one real node, with several clients at once where
// that is its point.
func TestDCB(t *testing.T) {
	node := testnode.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for _, test := range []struct {
		name string
		run  func(context.Context, *testing.T, *client.Client)
	}{
		{"course", testCourse}, {"courses of a student", testStudent}, {"username", testUsername},
		{"invoice", testInvoice}, {"opt-in", testOptIn}, {"price", testPrice}, {"once", testOnce},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, err := client.New(client.Config{Nodes: []string{node}})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			test.run(ctx, t, c)
		})
	}
}

// count runs do n times at once and returns how often it ended how: by error,
// nil for success.
func count(n int, do func(i int) error) map[error]int {
	results := make([]error, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { results[i] = do(i) })
	}
	wg.Wait()
	counts := make(map[error]int)
	for _, err := range results {
		counts[err]++
	}
	return counts
}

// want fails the test unless counts has these and no others.
func want(t *testing.T, counts map[error]int, wanted map[error]int) {
	t.Helper()
	if fmt.Sprint(counts) != fmt.Sprint(wanted) {
		t.Errorf("got %v, want %v", counts, wanted)
	}
}

func testCourse(ctx context.Context, t *testing.T, c *client.Client) {
	if err := Subscribe(ctx, c, "ada", "nowhere"); err != ErrNoCourse {
		t.Errorf("got %v", err)
	}
	if err := OfferCourse(ctx, c, "logic", 4); err != nil {
		t.Fatal(err)
	}
	got := count(16, func(i int) error { return Subscribe(ctx, c, fmt.Sprint("logician-", i), "logic") })
	want(t, got, map[error]int{nil: 4, ErrCourseFull: 12})
	if err := OfferCourse(ctx, c, "logic", 5); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(Subscribe(ctx, c, "ada", "logic"), Leave(ctx, c, "ada", "logic"), Subscribe(ctx, c, "bob", "logic")); err != nil {
		t.Errorf("got %v", err)
	}
	if err := Subscribe(ctx, c, "bob", "logic"); err != ErrSubscribed {
		t.Errorf("got %v", err)
	}
	if err := Subscribe(ctx, c, "ada", "logic"); err != ErrCourseFull {
		t.Errorf("got %v", err)
	}
}

func testStudent(ctx context.Context, t *testing.T, c *client.Client) {
	const courses = 8
	for i := range courses {
		if err := OfferCourse(ctx, c, fmt.Sprint("art-", i), 10); err != nil {
			t.Fatal(err)
		}
	}
	got := count(courses, func(i int) error { return Subscribe(ctx, c, "eve", fmt.Sprint("art-", i)) })
	want(t, got, map[error]int{nil: MaxCourses, ErrTooMany: courses - MaxCourses})
}

func testUsername(ctx context.Context, t *testing.T, c *client.Client) {
	now := time.Now()
	got := count(12, func(i int) error { return ClaimName(ctx, c, fmt.Sprint(i), "neo", now) })
	want(t, got, map[error]int{nil: 1, ErrNameTaken: 11})
	claimed := event.Query{Items: []event.QueryItem{{Tags: []string{"username:neo"}}}}
	page, err := c.Query(ctx, claimed, client.ReadOptions{})
	if err != nil || len(page.Events) != 1 {
		t.Fatalf("got %v, %v", page.Events, err)
	}
	owner := strings.TrimPrefix(page.Events[0].Stream, "user-")
	// The owner takes another name; the old one is reserved for a while.
	if err := errors.Join(ClaimName(ctx, c, owner, "neo", now), ClaimName(ctx, c, owner, "trinity", now)); err != nil {
		t.Fatal(err)
	}
	if err := ClaimName(ctx, c, "later", "neo", time.Now().Add(Retention-time.Hour)); !errors.Is(err, ErrNameTaken) {
		t.Errorf("got %v", err)
	}
	after := time.Now().Add(Retention + time.Hour)
	got = count(4, func(i int) error { return ClaimName(ctx, c, fmt.Sprint("later-", i), "neo", after) })
	want(t, got, map[error]int{nil: 1, ErrNameTaken: 3})
	if err := errors.Join(ReleaseName(ctx, c, owner), ReleaseName(ctx, c, owner), ClaimName(ctx, c, "late", "trinity", after)); err != nil {
		t.Error(err)
	}
}

func testInvoice(ctx context.Context, t *testing.T, c *client.Client) {
	const invoices = 24
	numbers := make([]uint64, invoices)
	want(t, count(invoices, func(i int) (err error) {
		numbers[i], err = IssueInvoice(ctx, c, fmt.Sprint(i), 100)
		return err
	}), map[error]int{nil: invoices})
	order := make(map[uint64]int)
	for i, number := range numbers {
		order[number] = i
	}
	for n := uint64(1); n <= invoices; n++ {
		e, err := c.EventAt(ctx, "invoices", n)
		if wanted := fmt.Sprintf(`{"cents":100,"number":%d,"order":"%d"}`, n, order[n]); err != nil || string(e.Data) != wanted {
			t.Errorf("got %s, %v; want %s", e.Data, err, wanted)
		}
	}
}

func testOptIn(ctx context.Context, t *testing.T, c *client.Client) {
	const mail = "ada@example.org"
	token, err := SignUp(ctx, c, mail)
	if err != nil {
		t.Fatal(err)
	}
	late, err := SignUp(ctx, c, mail)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if err := Confirm(ctx, c, "bob@example.org", token, now); err != ErrNoToken {
		t.Errorf("got %v", err)
	}
	if err := Confirm(ctx, c, mail, late, now.Add(TokenLife+time.Minute)); err != ErrTokenExpired {
		t.Errorf("got %v", err)
	}
	got := count(8, func(int) error { return Confirm(ctx, c, mail, token, now) })
	want(t, got, map[error]int{nil: 1, ErrTokenUsed: 7})
}

func testPrice(ctx context.Context, t *testing.T, c *client.Client) {
	err := errors.Join(DefinePrices(ctx, c),
		SetPrice(ctx, c, "tea", 300, 0), SetPrice(ctx, c, "tea", 350, time.Hour), // 300 for an hour yet
		SetPrice(ctx, c, "jam", 400, time.Hour),
		SetPrice(ctx, c, "cake", 500, 0), SetPrice(ctx, c, "cake", 550, 0)) // 500 no more
	if err != nil {
		t.Fatal(err)
	}
	for i, test := range []struct {
		lines   []Line
		refused string // the product
	}{
		{[]Line{{"tea", 350}, {"cake", 550}}, ""},
		{[]Line{{"tea", 300}, {"cake", 550}}, ""},
		{[]Line{{"tea", 310}}, "tea"},
		{[]Line{{"tea", 350}, {"jam", 350}}, "jam"}, // it had no price before
		{[]Line{{"tea", 300}, {"cake", 500}}, "cake"},
		{[]Line{{"soap", 100}}, "soap"},
	} {
		err := Order(ctx, c, fmt.Sprint(i), test.lines)
		var p *client.Problem
		switch {
		case test.refused == "" && err != nil:
			t.Errorf("%v: %v", test.lines, err)
		case test.refused != "" && (!client.IsGuardFailed(err) || !errors.As(err, &p) || p.Key != test.refused):
			t.Errorf("%v: got %v, want %s to be refused", test.lines, err, test.refused)
		}
		version, err := c.Head(ctx, fmt.Sprint("order-", i))
		if wanted := len(test.lines); err != nil || test.refused == "" && version != uint64(wanted) || test.refused != "" && version != 0 {
			t.Errorf("%v: the order has %d events, %v", test.lines, version, err)
		}
	}
}

func testOnce(ctx context.Context, t *testing.T, c *client.Client) {
	const clicks = 8
	records, firsts := make([]string, clicks), make([]bool, clicks)
	want(t, count(clicks, func(i int) error {
		record, repeated, err := RecordOnce(ctx, c, "form-1", []byte(`{"text":"hello"}`))
		records[i], firsts[i] = record, !repeated
		return err
	}), map[error]int{nil: clicks})
	first := 0
	for i, record := range records {
		if record != records[0] {
			t.Errorf("got records %v", records)
		}
		if firsts[i] {
			first++
		}
	}
	if other, repeated, err := RecordOnce(ctx, c, "form-2", nil); err != nil || repeated || other == records[0] || first != 1 {
		t.Errorf("got %s, %v, %v; %d of %d were the first", other, repeated, err, first, clicks)
	}
}
