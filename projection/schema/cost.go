package schema

import (
	"math"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"cairn/event"
)

// weigh fills in the cost, or says why the schema can't be used. A validation
// remembers nothing of what it has applied where, so that two references to the
// same schema cost twice; in a schema that refers to itself, twice at each level.
func (d *document) weigh() error {
	w := make(weigher)
	for depth := range d.cost {
		cost, err := w.cost(d.schema, depth)
		if err != nil {
			return err
		}
		d.cost[depth] = cost
	}
	if d.cost[0] > maxCost {
		return refusef("schema", "applies itself too often to the same value")
	}
	return nil
}

// weigher remembers what was weighed.
type weigher map[*jsonschema.Schema]*weight

type weight struct {
	inPlace, all, either []*jsonschema.Schema // as inPlace and within say
	own                  float64
	byDepth              [event.MaxDepth + 1]float32 // 0 = not yet
}

// weighing is the cost of a schema that is being weighed.
const weighing = -1

// cost is how many schemas s applies to a value, itself among them, and to one
// within each level below, depth of them.
func (w weigher) cost(s *jsonschema.Schema, depth int) (float64, error) {
	known := w[s]
	if known == nil {
		if err := allowed(s); err != nil {
			return 0, err
		}
		known = &weight{inPlace: inPlace(s), own: 1 + float64(len(s.Required))}
		known.all, known.either = within(s)
		if s.Enum != nil {
			known.own += float64(len(s.Enum.Values))
		}
		w[s] = known
	}
	if known.leaf() {
		return known.own, nil
	}
	switch known.byDepth[depth] {
	case 0:
	case weighing:
		return 0, refusef("schema", "applies itself to the same value without end")
	default:
		return float64(known.byDepth[depth]), nil
	}
	known.byDepth[depth] = weighing
	sum := known.own
	add := func(list []*jsonschema.Schema, depth int, to func(cost float64)) (err error) {
		for i := 0; i < len(list) && err == nil; i++ {
			var cost float64
			cost, err = w.cost(list[i], depth)
			to(cost)
		}
		return err
	}
	err := add(known.inPlace, depth, func(cost float64) { sum += cost })
	if err == nil && depth > 0 {
		most := 0.0
		if err = add(known.all, depth-1, func(cost float64) { sum += cost }); err == nil {
			err = add(known.either, depth-1, func(cost float64) { most = max(most, cost) })
		}
		sum += most
	}
	known.byDepth[depth] = float32(min(sum, math.MaxFloat32)) // so that no sum is infinite
	return float64(known.byDepth[depth]), err
}

// leaf reports whether a schema applies no other, so that it costs the same at
// any depth.
func (w *weight) leaf() bool { return len(w.inPlace) == 0 && len(w.all) == 0 && len(w.either) == 0 }

// inPlace are the schemas that s applies to the same value.
func inPlace(s *jsonschema.Schema) []*jsonschema.Schema {
	var list []*jsonschema.Schema
	for _, one := range []*jsonschema.Schema{s.Ref, s.Not, s.If, s.Then, s.Else} {
		if one != nil {
			list = append(list, one)
		}
	}
	for _, some := range [][]*jsonschema.Schema{s.AllOf, s.AnyOf, s.OneOf} {
		list = append(list, some...)
	}
	for _, one := range s.DependentSchemas {
		list = append(list, one)
	}
	return list
}

// within are the schemas that s applies to one value within: all of the first,
// and of the others only one.
func within(s *jsonschema.Schema) (all, either []*jsonschema.Schema) {
	additional, _ := s.AdditionalProperties.(*jsonschema.Schema)
	for _, one := range []*jsonschema.Schema{s.PropertyNames, additional, s.UnevaluatedProperties, s.Contains, s.Items2020, s.UnevaluatedItems} {
		if one != nil {
			all = append(all, one)
		}
	}
	for _, one := range s.PatternProperties {
		all = append(all, one)
	}
	for _, one := range s.Properties {
		either = append(either, one)
	}
	return all, append(either, s.PrefixItems...)
}

// allowed reports what of 2020-12 is not supported, or is not of it.
func allowed(s *jsonschema.Schema) error {
	switch {
	case s.Bool != nil:
	case s.DraftVersion != 2020:
		return refusef("schema", "has a part of another draft; all must be 2020-12")
	case s.DynamicRef != nil:
		return refusef("schema", `uses "$dynamicRef", which is not supported; "$ref" is`)
	}
	return nil
}
