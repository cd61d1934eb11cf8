package httpapi

import "cairn/event"

// answered is an event in the form in which it is answered.
type answered struct {
	*event.Event
	upcast bool // its data is not as it is stored
}

// typeForm brings events to the form that a request asks for. Its zero value
// leaves them as they are stored. One goroutine uses it.
type typeForm struct {
	upcasts Upcasts // nil = events are answered as they are stored
	copy    event.Event
}

// form returns the form of events that a request asks for, as of now.
func (s *Server) form(raw bool) typeForm {
	if raw {
		return typeForm{}
	}
	return typeForm{upcasts: s.opts.Types.Upcasts()}
}

// of returns the form of e. It is valid until the next call, and as long as e.
func (f *typeForm) of(e *event.Event) answered {
	if f.upcasts == nil || !f.upcasts.NeedsUpcast(e.Type, e.Schema) {
		return answered{Event: e}
	}
	f.copy = *e
	err := f.upcasts.Upcast(&f.copy, 0)
	if err != nil {
		f.copy.UpcastError = err.Error()
	}
	return answered{Event: &f.copy, upcast: err == nil}
}

// isStored reports whether the event is answered as it is stored, and says
// nothing more.
func (a answered) isStored() bool { return !a.upcast && a.UpcastError == "" }

// room is at least as long as the JSON of the event.
func (a answered) room() int { return roomFor(a.Event) + 6*len(a.UpcastError) + 32 }
