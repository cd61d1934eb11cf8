// Package schema holds what the log knows of the data of event types: JSON
// Schemas (2020-12) with numbers from 1 on, and upcasts, which bring the data of
// an older event to the form of a newer schema when it is read. What is stored
// never changes.
//
// A Registration is one schema of a type, with the upcast that leads to it from
// the one before. A Registry is all of them. It is a function of the
// registrations and their order alone: With, Validate and Upcast give the same
// on every node that runs this version of the package.
//
// # Numbers
//
// An event is stored with the number of the schema it was checked against. 0
// stands for none: the event is older than the first schema of its type. It is
// read as it is, unless schema 1 has an upcast, which is then the way from there.
//
// # Renaming
//
// A registration may give the type another name. The upcast then leads out of
// the type: its result is an event of the new type, at the number that was the
// newest of the new type at the time (0 if it had none), and goes on from there
// along the schemas of the new type. So a type that was renamed takes no further
// schemas, and no new events but those that name an older schema.
//
// # What is refused
//
// Whether an upcast gives valid data for all data there could be can't be
// decided. With refuses what can be:
//
//   - a number that does not follow the newest, or another content for one that
//     is taken;
//   - a schema that is not one, that refers to something outside of itself, uses
//     "$dynamicRef" or an older draft, or applies itself to the same value without end;
//   - a schema after the first without an upcast, and an upcast without an
//     example;
//   - an upcast that does not compile, or whose result can be seen to be never of
//     a "type" that the schema allows;
//   - an example whose old data is not valid under the schema before, whose
//     upcast is not its new data, or whose new data is not valid;
//   - a new name that is gone: its type was renamed itself.
//
// The rest shows in the data: `cairn schema check` upcasts and validates all of
// history.
//
// A Registry never changes, and everything in this package may be called from
// any number of goroutines.
package schema
