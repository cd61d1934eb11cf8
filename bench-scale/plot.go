package main

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// Measures of the picture, in pixels.
const (
	plotWidth   = 860
	panelHeight = 220
	panelGap    = 70
	marginLeft  = 90
	marginRight = 30
	marginTop   = 40
)

// panel is one diagram of the picture. Its axes begin at 0, but for a
// logarithmic one.
type panel struct {
	title        string
	xLabel       string
	xMost, yMost float64
	yLeast       float64 // above 0 = logarithmic
	xText, yText func(v float64) string
	top          int
	out          *strings.Builder
}

// plot is the picture: the append rate and the memory over the length of the
// log, and the p99 of appends while state was saved.
func (r *report) plot() []byte {
	var out strings.Builder
	height := marginTop + 3*(panelHeight+panelGap)
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n",
		plotWidth, height, plotWidth, height)
	fmt.Fprintf(&out, `<rect width="%d" height="%d" fill="white"/>`+"\n", plotWidth, height)
	r.plotLoad(&out, 0, "append rate, 8 clients × 100 (events/s, each second; dots: the last million before a row)",
		func(s sample) float64 { return s.Rate }, "append rate, 8 clients × 100", "rate", 1)
	r.plotLoad(&out, 1, "resident memory of the node that holds most, MiB (dots: peak of a row, of the first node)",
		func(s sample) float64 { return float64(s.Resident) / (1 << 20) },
		"resident memory after the load, peak of the row", "node_1_peak_bytes", 1<<20)
	r.plotStalls(&out)
	out.WriteString("</svg>\n")
	return []byte(out.String())
}

// plotLoad draws one value of the samples over the number of events, and one
// value of a line of the table, divided by unit, as dots.
func (r *report) plotLoad(out *strings.Builder, place int, title string, of func(s sample) float64, name, value string, unit float64) {
	p := panel{title: title, xLabel: "events", xText: count[float64], yText: count[float64], top: panelTop(place), out: out}
	for _, s := range r.Samples {
		p.xMost, p.yMost = max(p.xMost, float64(s.Events)), max(p.yMost, of(s))
	}
	for i := range r.Rows {
		p.xMost, p.yMost = max(p.xMost, float64(r.Rows[i].Events)), max(p.yMost, r.Rows[i].line(name).Values[value]/unit)
	}
	p.axes()
	points := make([][2]float64, len(r.Samples))
	for i, s := range r.Samples {
		points[i] = [2]float64{float64(s.Events), of(s)}
	}
	p.curve(points)
	for i := range r.Rows {
		if v, ok := r.Rows[i].line(name).Values[value]; ok {
			fmt.Fprintf(out, `<circle cx="%.1f" cy="%.1f" r="5" fill="#b03020"/>`+"\n", p.x(float64(r.Rows[i].Events)), p.y(v/unit))
		}
	}
}

// plotStalls draws the p99 of a probe over time, with bands for what was taken.
func (r *report) plotStalls(out *strings.Builder) {
	t := r.Stalls
	p := panel{
		title:  fmt.Sprintf("p99 of an append in each %s (bands: grey a savepoint, blue a snapshot)", t.Slice),
		xLabel: "seconds", yLeast: float64(100 * time.Microsecond), yMost: float64(100 * time.Millisecond),
		xText: func(v float64) string { return fmt.Sprintf("%.0f", v) },
		yText: func(v float64) string { return short(time.Duration(v)) }, top: panelTop(2), out: out,
	}
	p.xMost = (time.Duration(len(t.P99)) * t.Slice).Seconds()
	points := make([][2]float64, len(t.P99))
	for i, d := range t.P99 {
		p.yMost = max(p.yMost, float64(d))
		points[i] = [2]float64{(time.Duration(i) * t.Slice).Seconds(), float64(d)}
	}
	for _, w := range t.Windows {
		color := map[string]string{savepoint: "#cccccc", snapshot: "#b8d0f0"}[w.Kind]
		left, right := p.x(w.Begun.Sub(t.Begun).Seconds()), p.x(w.Ended.Sub(t.Begun).Seconds())
		fmt.Fprintf(out, `<rect x="%.1f" y="%d" width="%.1f" height="%d" fill="%s"/>`+"\n", left, p.top, max(right-left, 1), panelHeight, color)
	}
	p.axes()
	p.curve(points)
}

func panelTop(place int) int { return marginTop + place*(panelHeight+panelGap) }

func (p *panel) x(v float64) float64 {
	return marginLeft + (plotWidth-marginLeft-marginRight)*v/max(p.xMost, 1)
}

func (p *panel) y(v float64) float64 {
	part := v / max(p.yMost, 1)
	if p.yLeast > 0 {
		part = math.Log(max(v, p.yLeast)/p.yLeast) / math.Log(p.yMost/p.yLeast)
	}
	return float64(p.top) + panelHeight*(1-part)
}

// axes draws the frame, the ticks and the texts.
func (p *panel) axes() {
	bottom := p.top + panelHeight
	fmt.Fprintf(p.out, `<text x="%d" y="%d" font-weight="bold">%s</text>`+"\n", marginLeft, p.top-10, p.title)
	fmt.Fprintf(p.out, `<rect x="%d" y="%d" width="%d" height="%d" fill="none" stroke="#444444"/>`+"\n",
		marginLeft, p.top, plotWidth-marginLeft-marginRight, panelHeight)
	for _, v := range ticks(p.xMost) {
		fmt.Fprintf(p.out, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", p.x(v), bottom+16, p.xText(v))
	}
	fmt.Fprintf(p.out, `<text x="%d" y="%d" text-anchor="end">%s</text>`+"\n", plotWidth-marginRight, bottom+32, p.xLabel)
	values := ticks(p.yMost)
	if p.yLeast > 0 {
		values = nil
		for v := p.yLeast; v <= p.yMost; v *= 10 {
			values = append(values, v)
		}
	}
	for _, v := range values {
		fmt.Fprintf(p.out, `<line x1="%d" x2="%d" y1="%.1f" y2="%.1f" stroke="#dddddd"/>`+"\n", marginLeft, plotWidth-marginRight, p.y(v), p.y(v))
		fmt.Fprintf(p.out, `<text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n", marginLeft-6, p.y(v)+4, p.yText(v))
	}
}

func (p *panel) curve(points [][2]float64) {
	if len(points) == 0 {
		return
	}
	p.out.WriteString(`<polyline fill="none" stroke="#2050a0" stroke-width="1.2" points="`)
	for _, point := range points {
		fmt.Fprintf(p.out, "%.1f,%.1f ", p.x(point[0]), p.y(point[1]))
	}
	p.out.WriteString(`"/>` + "\n")
}

// ticks are about five round numbers from 0 up to most.
func ticks(most float64) []float64 {
	if most <= 0 {
		return []float64{0}
	}
	step := math.Pow(10, math.Floor(math.Log10(most/5)))
	for _, factor := range []float64{2, 2.5, 2} { // 2, 5, 10
		if most/step > 6 {
			step *= factor
		}
	}
	var all []float64
	for v := 0.0; v <= most; v += step {
		all = append(all, v)
	}
	return all
}
