package index

import (
	"cmp"
	"slices"
	"strings"

	"cairn/event"
)

// plan turns queries and filters into sources, and owns their lists.
type plan struct {
	v        *View
	low      uint64 // positions ≤ low are of no interest
	backward bool
	lists    []*list
	err      error
}

// part is a source and about how many positions it has.
type part struct {
	source
	count uint64
}

func (p *plan) term(k kind, text string) part {
	l := p.v.list(k, text, p.low, &p.err)
	n := l.total()
	if n == 0 {
		return part{source: nothing{}}
	}
	p.lists = append(p.lists, l)
	if p.backward {
		return part{backward{l}, n}
	}
	return part{forward{l}, n}
}

// query returns the events that a query matches; all is true if these are all
// events but those of '$' streams.
func (p *plan) query(q event.Query) (matches part, all bool) {
	for _, it := range q.Items {
		all = all || len(it.Types) == 0 && len(it.Tags) == 0
	}
	if all || len(q.Items) == 0 {
		return p.userEvents(), true
	}
	var items []part
	for _, it := range q.Items {
		items = append(items, p.item(it))
	}
	return union(items), false
}

// item returns the events that match an item which asks for something.
func (p *plan) item(it event.QueryItem) part {
	var parts []part
	for _, tag := range it.Tags {
		tagged := p.term(kindTag, tag)
		if tagged.count == 0 {
			return tagged
		}
		parts = append(parts, tagged)
	}
	if len(it.Types) > 0 {
		var types []part
		for _, t := range it.Types {
			types = append(types, p.term(kindType, t))
		}
		parts = append(parts, union(types))
	}
	return intersection(parts)
}

// userEvents returns every event but those of '$' streams.
func (p *plan) userEvents() part {
	s := userEvents{system: p.term(kindSystem, "").source, first: 1, last: p.v.at}
	if p.backward {
		s.first, s.last = ^p.v.at, ^uint64(1)
	}
	return part{s, p.v.at}
}

func union(parts []part) part {
	var sources []source
	var count uint64
	for _, m := range parts {
		if m.count > 0 {
			sources, count = append(sources, m.source), count+m.count
		}
	}
	if count == 0 {
		return part{source: nothing{}}
	}
	return part{newEither(sources), count}
}

// intersection puts the smallest part first: it proposes, the others check.
func intersection(parts []part) part {
	slices.SortStableFunc(parts, compareCounts)
	if len(parts) == 1 || parts[0].count == 0 {
		return parts[0]
	}
	var s both
	for _, m := range parts {
		s = append(s, m.source)
	}
	return part{s, parts[0].count}
}

func compareCounts(a, b part) int { return cmp.Compare(a.count, b.count) }

// filter returns candidates for a filter: every position that it chooses, and
// if exact no other (times aside). ok is false if no index narrows it down.
func (p *plan) filter(f *event.Filter) (candidates part, exact, ok bool) {
	if contradicts(f) {
		return part{source: nothing{}}, true, true
	}
	exact = true
	var parts []part
	var users []part // a part that is no help by itself
	if len(f.Query.Items) > 0 {
		if matches, all := p.query(f.Query); all {
			users = append(users, matches)
		} else {
			parts = append(parts, matches)
		}
	}
	category := f.Category
	switch prefixed := strings.Contains(f.StreamPrefix, "-"); {
	case f.Stream != "":
		parts = append(parts, p.term(kindStream, f.Stream))
		category = "" // contradicts has looked at it, and at the prefix
	case prefixed:
		category = event.Category(f.StreamPrefix)
		exact = false
	case category == "" && f.StreamPrefix != "":
		exact = false
	}
	if category != "" {
		parts = append(parts, p.term(kindCategory, category))
	}
	if f.CorrelationID != "" {
		parts = append(parts, p.term(kindCorrelation, f.CorrelationID))
	}
	if f.CausationID != "" {
		parts = append(parts, p.term(kindCausation, f.CausationID))
	}
	if len(parts) == 0 {
		return part{source: nothing{}}, false, false
	}
	parts, dropped := p.worthwhile(parts)
	return intersection(append(parts, users...)), exact && !dropped, true
}

// worthwhile leaves out the parts that are so much longer than the shortest one
// that each of its positions would need a block of theirs of its own: to read
// the event itself instead costs no more, and those that match are read anyway.
func (p *plan) worthwhile(parts []part) (kept []part, dropped bool) {
	least := slices.MinFunc(parts, compareCounts).count
	for _, m := range parts {
		if m.count/p.v.index.limits.block <= least {
			kept = append(kept, m)
		}
	}
	return kept, len(kept) < len(parts)
}

// contradicts reports whether no name of a stream can meet what a filter says
// about it.
func contradicts(f *event.Filter) bool {
	if f.Stream != "" {
		return !strings.HasPrefix(f.Stream, f.StreamPrefix) ||
			f.Category != "" && event.Category(f.Stream) != f.Category
	}
	if f.Category == "" || f.StreamPrefix == "" {
		return false
	}
	if strings.Contains(f.StreamPrefix, "-") {
		return event.Category(f.StreamPrefix) != f.Category
	}
	return !strings.HasPrefix(f.Category, f.StreamPrefix)
}

// iter makes an iterator of a source. It starts after bound in its direction;
// bound 0 means from the end it starts at.
func (p *plan) iter(s source, bound uint64) Iter {
	c := &cursor{src: s, backward: p.backward, err: &p.err, lists: p.lists}
	switch {
	case !p.backward:
		c.next = min(bound, p.v.at) + 1
	case bound > 0:
		c.next = ^(bound - 1)
	}
	return c
}

func (p *plan) close() {
	for _, l := range p.lists {
		l.close()
	}
}
