package main

import (
	"fmt"
	"slices"
	"time"
)

// spread is how a set of durations is distributed.
type spread struct {
	count           int
	p50, p99, worst time.Duration
}

// spreadOf sorts the durations.
func spreadOf(d []time.Duration) spread {
	if len(d) == 0 {
		return spread{}
	}
	slices.Sort(d)
	return spread{count: len(d), p50: percentile(d, 50), p99: percentile(d, 99), worst: d[len(d)-1]}
}

// percentile is the least of the sorted durations that p percent of them do not
// exceed.
func percentile(sorted []time.Duration, p int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}

func (s spread) String() string {
	return fmt.Sprintf("p50 %s, p99 %s, worst %s", short(s.p50), short(s.p99), short(s.worst))
}

// put adds the figures, in milliseconds, to values.
func (s spread) put(values map[string]float64, prefix string) {
	values[prefix+"p50_ms"], values[prefix+"p99_ms"], values[prefix+"worst_ms"] = ms(s.p50), ms(s.p99), ms(s.worst)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// short is a duration with three digits.
func short(d time.Duration) string {
	unit, name := time.Second, "s"
	switch {
	case d < time.Millisecond:
		unit, name = time.Microsecond, "µs"
	case d < time.Second:
		unit, name = time.Millisecond, "ms"
	}
	v := float64(d) / float64(unit)
	digits := 2
	for limit := 10.0; v >= limit && digits > 0; limit *= 10 {
		digits--
	}
	return fmt.Sprintf("%.*f %s", digits, v, name)
}

// count is a number with commas.
func count[N int | int64 | uint64 | float64](n N) string {
	digits := fmt.Sprintf("%.0f", float64(n))
	var out []byte
	for i := range len(digits) {
		if i > 0 && (len(digits)-i)%3 == 0 && digits[i-1] != '-' {
			out = append(out, ',')
		}
		out = append(out, digits[i])
	}
	return string(out)
}

// mib is a size in MiB.
func mib[N int | int64 | float64](n N) string {
	return fmt.Sprintf("%.*f MiB", map[bool]int{true: 1, false: 0}[float64(n) < 100<<20], float64(n)/(1<<20))
}
