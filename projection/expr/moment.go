package expr

import (
	"errors"
	"fmt"
	"math"
	"time"
)

var errTimeRange = errors.New("the time is out of range: years 1678 to 2261, durations to 292 years")

// The first and last second whose nanoseconds an int64 can count.
const (
	firstSecond = math.MinInt64/1_000_000_000 + 1
	lastSecond  = math.MaxInt64/1_000_000_000 - 1
)

func timestampOf(ns int64) (Value, error) {
	if s := ns / 1e9; s < firstSecond || s > lastSecond {
		return Value{}, errTimeRange
	}
	return TimeOf(ns), nil
}

// toTimestamp reads RFC 3339, or seconds since 1970.
func toTimestamp(f *frame, a []Value) (Value, error) {
	switch a[0].kind {
	case Timestamp:
		return a[0], nil
	case Number:
		s, err := f.whole(a[0])
		if err != nil {
			return Value{}, err
		}
		if s < firstSecond || s > lastSecond {
			return Value{}, errTimeRange
		}
		return TimeOf(s * 1e9), nil
	}
	s := a[0].text
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || !strictTime(s) {
		return Value{}, fmt.Errorf("%s is not a time such as 2026-01-31T09:30:00Z (RFC 3339)", quoted(s))
	}
	if t.Unix() < firstSecond || t.Unix() > lastSecond {
		return Value{}, errTimeRange
	}
	return TimeOf(t.UnixNano()), nil
}

// strictTime refuses what time.Parse takes beyond RFC 3339: hours of one digit
// and a comma before the fraction.
func strictTime(s string) bool { return len(s) >= 20 && s[13] == ':' && s[19] != ',' }

func toDuration(_ *frame, a []Value) (Value, error) {
	if a[0].kind == Duration {
		return a[0], nil
	}
	d, err := time.ParseDuration(a[0].text)
	if err != nil {
		return Value{}, fmt.Errorf("%s is not a duration such as 1h30m or 0.5s", quoted(a[0].text))
	}
	return durationOf(int64(d)), nil
}

// addTimeFunctions declares the parts of a timestamp, in UTC or at an offset
// such as '+02:00', and of a duration.
func addTimeFunctions(methods map[string]*function, text, number kinds) {
	parts := map[string]func(time.Time) int{
		"getFullYear":     time.Time.Year,
		"getMonth":        func(t time.Time) int { return int(t.Month()) - 1 },
		"getDate":         time.Time.Day,
		"getDayOfMonth":   func(t time.Time) int { return t.Day() - 1 },
		"getDayOfYear":    func(t time.Time) int { return t.YearDay() - 1 },
		"getDayOfWeek":    func(t time.Time) int { return int(t.Weekday()) },
		"getHours":        time.Time.Hour,
		"getMinutes":      time.Time.Minute,
		"getSeconds":      time.Time.Second,
		"getMilliseconds": func(t time.Time) int { return t.Nanosecond() / 1e6 },
	}
	units := map[string]int64{"getHours": 3600e9, "getMinutes": 60e9, "getSeconds": 1e9, "getMilliseconds": 1e6}
	for name, part := range parts {
		in := setOf(Timestamp)
		unit, ofDuration := units[name]
		if ofDuration {
			in |= setOf(Duration)
		}
		methods[name] = &function{in: []kinds{in, text}, optional: 1, out: number, run: reading(func(_ *frame, a []Value) (Value, error) {
			if a[0].kind == Duration {
				if len(a) == 2 {
					return Value{}, errors.New("a duration has no time zone")
				}
				return NumberOf(float64(a[0].ns() / unit)), nil
			}
			t := time.Unix(0, a[0].ns()).UTC()
			if len(a) == 2 {
				zone, err := zoneOf(a[1].text)
				if err != nil {
					return Value{}, err
				}
				t = t.In(zone)
			}
			return NumberOf(float64(part(t))), nil
		})}
	}
}

// zoneOf reads an offset. Names of places are refused: what they mean depends
// on the machine's tables.
func zoneOf(s string) (*time.Location, error) {
	if s == "UTC" || s == "Z" {
		return time.UTC, nil
	}
	signed := s
	if s != "" && s[0] != '+' && s[0] != '-' {
		signed = "+" + s
	}
	t, err := time.Parse("-07:00", signed)
	if err != nil {
		return nil, fmt.Errorf("%s is not an offset such as +02:00, or UTC: what the name of a place means would depend on the node", quoted(s))
	}
	_, seconds := t.Zone()
	return time.FixedZone("", seconds), nil
}
