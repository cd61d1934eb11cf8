package report

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"cairn/jepsen-lite/history"
)

// The picture, in units of SVG: on top a lane for each nemesis, below it the
// throughput, below that the latency, all over the same time.
const (
	chartWidth = 960
	left       = 128 // of the plots; names of lanes and numbers stand before it
	right      = chartWidth - 12
	laneHeight = 18
	plotHeight = 170
	gap        = 46 // above a plot, for its title
	maxBins    = 1200
	colours    = 8 // of nemeses in the page's style
)

type chart struct {
	Width, Height int
	Left, Right   int
	LanesTop      int
	Bottom        int // of the lowest plot
	Lanes         []lane
	Bands         []band
	Times         []tick
	Rate, Latency plot
	Bin           string
	OK, Refused   string // paths of areas, stacked
	Unknown       string
	Median, P99   string // paths of lines, as is Slowest
	Slowest       string
}

// plot is where one of the two stands.
type plot struct {
	Top, Bottom int
	Ticks       []tick
}

type lane struct {
	Name   string
	Text   int // baseline
	Colour int
}

// band is the time of a fault.
type band struct {
	X, Width    float64
	LaneY       int
	Top, Height int // through the plots
	Colour      int
	Title       string
}

type tick struct {
	At    float64
	Label string
}

// bin is what ended within a span of time.
type bin struct {
	ok, refused, unknown int
	took                 []time.Duration // of those that are OK
}

func newChart(h *history.History) chart {
	end := max(h.Length, time.Second)
	for i := range h.Ops {
		end = max(end, h.Ops[i].End)
	}
	for i := range h.Faults {
		end = max(end, h.Faults[i].End)
	}
	end = min(end, 1000*time.Hour) // a time beyond it is a mistake of the recording
	width := time.Second
	for _, w := range []time.Duration{1, 2, 5, 10, 30, 60, 300, 3600} {
		if width = w * time.Second; end/width < maxBins {
			break
		}
	}
	bins := make([]bin, end/width+1)
	for i := range h.Ops {
		op := &h.Ops[i]
		b := &bins[min(max(op.End, 0)/width, time.Duration(len(bins)-1))]
		switch op.Outcome {
		case history.OK:
			b.ok++
			b.took = append(b.took, op.End-op.Start)
		case history.Refused:
			b.refused++
		default:
			b.unknown++
		}
	}
	for i := range bins {
		slices.Sort(bins[i].took)
	}
	c := chart{Width: chartWidth, Left: left, Right: right, LanesTop: 8, Bin: width.String()}
	span := width * time.Duration(len(bins))
	x := func(t time.Duration) float64 {
		t = min(max(t, 0), span)
		return round(left + float64(t)/float64(span)*(right-left))
	}
	top := c.lanes(h) + gap
	c.Rate = plot{Top: top, Bottom: top + plotHeight}
	top += plotHeight + gap
	c.Latency = plot{Top: top, Bottom: top + plotHeight}
	c.Bottom, c.Height = c.Latency.Bottom, c.Latency.Bottom+26
	c.bands(h, x)
	c.times(span, x)
	c.rate(bins, width, x)
	c.latency(bins, width, x)
	return c
}

// lanes gives each nemesis a lane, in order of its first fault, and returns
// where they end.
func (c *chart) lanes(h *history.History) int {
	y := c.LanesTop
	for i := range h.Faults {
		name := h.Faults[i].Nemesis
		if !slices.ContainsFunc(c.Lanes, func(l lane) bool { return l.Name == name }) {
			c.Lanes = append(c.Lanes, lane{name, y + laneHeight - 5, len(c.Lanes) % colours})
			y += laneHeight
		}
	}
	return y
}

func (c *chart) bands(h *history.History, x func(time.Duration) float64) {
	for i := range h.Faults {
		f := &h.Faults[i]
		n := slices.IndexFunc(c.Lanes, func(l lane) bool { return l.Name == f.Nemesis })
		c.Bands = append(c.Bands, band{
			X: x(f.Start), Width: round(max(2, x(f.End)-x(f.Start))), LaneY: c.LanesTop + n*laneHeight + 2,
			Top: c.Rate.Top, Height: c.Latency.Bottom - c.Rate.Top, Colour: c.Lanes[n].Colour,
			Title: fmt.Sprintf("%s: %s, %.1f s to %.1f s", f.Nemesis, f.What, f.Start.Seconds(), f.End.Seconds()),
		})
	}
}

func (c *chart) times(span time.Duration, x func(time.Duration) float64) {
	step := time.Second
	for _, s := range []time.Duration{1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 6 * 3600, 24 * 3600, 120 * 3600} {
		if step = s * time.Second; span/step <= 12 {
			break
		}
	}
	for t := time.Duration(0); t <= span; t += step {
		label := t.String()
		for _, zero := range []string{"m0s", "h0m"} {
			if strings.HasSuffix(label, zero) {
				label = label[:len(label)-2]
			}
		}
		c.Times = append(c.Times, tick{x(t), label})
	}
}

// rate draws operations a second, one area on the other.
func (c *chart) rate(bins []bin, width time.Duration, x func(time.Duration) float64) {
	most := 1.0
	perSecond := func(n int) float64 { return float64(n) / width.Seconds() }
	for _, b := range bins {
		most = max(most, perSecond(b.ok+b.refused+b.unknown))
	}
	step := math.Pow(10, math.Floor(math.Log10(most)))
	for _, part := range []float64{0.2, 0.5, 1} {
		if most/(step*part) <= 5 {
			step *= part
			break
		}
	}
	most = math.Ceil(most/step) * step
	y := func(v float64) float64 {
		return round(float64(c.Rate.Bottom) - v/most*float64(c.Rate.Bottom-c.Rate.Top))
	}
	for n := 0.0; n*step <= most+step/2; n++ {
		c.Rate.Ticks = append(c.Rate.Ticks, tick{y(n * step), fmt.Sprintf("%g", round(n*step))})
	}
	area := func(from, to func(b *bin) int) string {
		var up, down []string
		for i := range bins {
			a, z := x(width*time.Duration(i)), x(width*time.Duration(i+1))
			low, high := y(perSecond(from(&bins[i]))), y(perSecond(to(&bins[i])))
			up = append(up, fmt.Sprintf("%g %gH%g", a, high, z))
			down = append(down, fmt.Sprintf("%g %gH%g", z, low, a))
		}
		slices.Reverse(down)
		return "M" + strings.Join(up, "L") + "L" + strings.Join(down, "L") + "Z"
	}
	none := func(*bin) int { return 0 }
	ok := func(b *bin) int { return b.ok }
	refused := func(b *bin) int { return b.ok + b.refused }
	all := func(b *bin) int { return b.ok + b.refused + b.unknown }
	c.OK, c.Refused, c.Unknown = area(none, ok), area(ok, refused), area(refused, all)
}

// latency draws on a logarithmic scale. A bin without an answer is a gap.
func (c *chart) latency(bins []bin, width time.Duration, x func(time.Duration) float64) {
	low, high := 100*time.Microsecond, 10*time.Millisecond
	for _, b := range bins {
		for n := len(b.took); n > 0 && b.took[n-1] > high && high < 1000*time.Second; {
			high *= 10
		}
	}
	decades := math.Log10(float64(high) / float64(low))
	y := func(d time.Duration) float64 {
		part := math.Log10(float64(min(max(d, low), high))/float64(low)) / decades
		return round(float64(c.Latency.Bottom) - part*float64(c.Latency.Bottom-c.Latency.Top))
	}
	for d := low; d <= high; d *= 10 {
		c.Latency.Ticks = append(c.Latency.Ticks, tick{y(d), short(d)})
	}
	line := func(of func(took []time.Duration) time.Duration) string {
		var path strings.Builder
		drawn := false
		for i, b := range bins {
			if len(b.took) == 0 {
				drawn = false
				continue
			}
			a, z, h := x(width*time.Duration(i)), x(width*time.Duration(i+1)), y(of(b.took))
			if drawn {
				fmt.Fprintf(&path, "V%gH%g", h, z)
			} else {
				fmt.Fprintf(&path, "M%g %gH%g", a, h, z)
			}
			drawn = true
		}
		return path.String()
	}
	c.Median = line(func(took []time.Duration) time.Duration { return quantile(took, 50) })
	c.P99 = line(func(took []time.Duration) time.Duration { return quantile(took, 99) })
	c.Slowest = line(func(took []time.Duration) time.Duration { return took[len(took)-1] })
}

// round keeps one digit behind the point, so that paths stay short.
func round(v float64) float64 { return math.Round(v*10) / 10 }
