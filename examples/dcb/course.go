// Package dcb shows decisions whose boundary is not one entity but whatever
// events they depend on: the examples of https://dcb.events, made with what
// Cairn has. Each file is one of them, and says why it is made the way it is.
//
// Everything here may be called by any number of programs at once, against any
// nodes.
package dcb

import (
	"context"
	"encoding/json"
	"errors"

	"cairn/client"
	"cairn/event"
)

// What a subscription may be refused for.
var (
	ErrNoCourse   = errors.New("there is no such course")
	ErrCourseFull = errors.New("the course has no place left")
	ErrTooMany    = errors.New("the student has all courses they may have")
	ErrSubscribed = errors.New("the student has this course")
)

// MaxCourses is how many courses a student may have.
const MaxCourses = 5

// OfferCourse adds a course, or changes how many students it takes.
func OfferCourse(ctx context.Context, c *client.Client, course string, capacity int) error {
	data, err := json.Marshal(map[string]int{"capacity": capacity})
	if err != nil {
		return err
	}
	_, err = c.Append(ctx, "course-"+course, []event.Event{{Type: "CourseOffered", Tags: []string{"course:" + course}, Data: data}})
	return err
}

// enrolment is what a subscription depends on: the course's side and the
// student's.
type enrolment struct {
	capacity, taken int // of the course
	courses         int // of the student
	subscribed      bool
}

// Subscribe gives a student a place in a course. Two rules must hold at once,
// one of the course and one of the student, and there is no stream that has
// both. The query has: all events of the course, and all subscriptions of the
// student. If one of them is new when the append arrives, it is decided anew.
// Students of other courses do not disturb.
func Subscribe(ctx context.Context, c *client.Client, student, course string) error {
	courseTag, studentTag := "course:"+course, "student:"+student
	_, err := client.Decide(ctx, c, client.Decider[enrolment]{
		Query: event.Query{Items: []event.QueryItem{
			{Tags: []string{courseTag}},
			{Types: []string{"StudentSubscribed", "StudentLeft"}, Tags: []string{studentTag}},
		}},
		Fold: func(e *enrolment, ev *event.Event) error { return e.add(ev, courseTag, studentTag) },
		Decide: func(e *enrolment) ([]event.Event, error) {
			switch {
			case e.capacity == 0:
				return nil, ErrNoCourse
			case e.subscribed:
				return nil, ErrSubscribed
			case e.taken >= e.capacity:
				return nil, ErrCourseFull
			case e.courses >= MaxCourses:
				return nil, ErrTooMany
			}
			return []event.Event{subscription("StudentSubscribed", student, course)}, nil
		},
		Tries: 1000, // where many want the last place, each try is lost to somebody who got one
	})
	return err
}

// Leave gives the place back. To leave a course one does not have does nothing.
func Leave(ctx context.Context, c *client.Client, student, course string) error {
	courseTag, studentTag := "course:"+course, "student:"+student
	_, err := client.Decide(ctx, c, client.Decider[enrolment]{
		Query: event.Query{Items: []event.QueryItem{{Tags: []string{courseTag, studentTag}}}},
		Fold:  func(e *enrolment, ev *event.Event) error { return e.add(ev, courseTag, studentTag) },
		Decide: func(e *enrolment) ([]event.Event, error) {
			if !e.subscribed {
				return nil, nil
			}
			return []event.Event{subscription("StudentLeft", student, course)}, nil
		},
	})
	return err
}

func subscription(typ, student, course string) event.Event {
	return event.Event{Stream: "student-" + student, Type: typ, Tags: []string{"course:" + course, "student:" + student}}
}

func (e *enrolment) add(ev *event.Event, course, student string) error {
	change := 0
	switch ev.Type {
	case "CourseOffered":
		var offered struct{ Capacity int }
		err := json.Unmarshal(ev.Data, &offered)
		e.capacity = offered.Capacity
		return err
	case "StudentSubscribed":
		change = 1
	case "StudentLeft":
		change = -1
	}
	ofCourse, ofStudent := has(ev, course), has(ev, student)
	if ofCourse {
		e.taken += change
	}
	if ofStudent {
		e.courses += change
	}
	if ofCourse && ofStudent {
		e.subscribed = change > 0
	}
	return nil
}
