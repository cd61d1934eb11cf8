package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"cairn/client"
)

// benchFlags are the flags of `cairn bench`.
type benchFlags struct {
	clients, batch []int
	seconds        float64
	warmup         time.Duration
	streams, size  int
	spread, ids    bool
}

func (a *app) newBench() *cobra.Command {
	var f benchFlags
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure how fast the cluster appends",
		Long: `Append as fast as the cluster takes it, with different numbers of clients and of
events per append, and print events per second and how long an append takes.

Every client has a connection of its own and sends its next append when the
last one is answered, which is when a majority has it on disk. The events stay
in the log, in streams named bench-000000 and so on: do not run this on a log
that matters.`,
		Example: `  cairn bench
  cairn bench --clients 64 --batch 1 --seconds 30
  cairn bench --spread --output json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.bench(cmd, &f) },
	}
	flags := cmd.Flags()
	flags.IntSliceVar(&f.clients, "clients", []int{1, 64, 256}, "numbers of clients")
	flags.IntSliceVar(&f.batch, "batch", []int{1, 100}, "numbers of events per append; unless one of the two is given, 8 × 100 is measured too")
	flags.Float64Var(&f.seconds, "seconds", 5, "how long each measurement takes")
	flags.DurationVar(&f.warmup, "warmup", 500*time.Millisecond, "how long each runs before it is measured")
	flags.IntVar(&f.streams, "streams", 1000, "number of streams to spread the events over")
	flags.IntVar(&f.size, "size", 256, "bytes of data in each event")
	flags.BoolVar(&f.ids, "ids", false, "send ids, as a client that retries does, instead of having the server make them")
	flags.BoolVar(&f.spread, "spread", false, "spread the clients over all nodes instead of going to the leader")
	return cmd
}

func (f *benchFlags) check(cmd *cobra.Command) error {
	switch {
	case len(f.clients) == 0 || slices.Min(f.clients) < 1 || slices.Max(f.clients) > 10_000:
		return usagef(cmd, "--clients must be from 1 to 10,000")
	case len(f.batch) == 0 || slices.Min(f.batch) < 1 || slices.Max(f.batch) > 10_000:
		return usagef(cmd, "--batch must be from 1 to 10,000")
	case f.seconds <= 0 || f.warmup < 0:
		return usagef(cmd, "--seconds must be above 0 and --warmup not below")
	case f.streams < 1 || f.streams > 1_000_000:
		return usagef(cmd, "--streams must be from 1 to 1,000,000")
	case f.size < 2 || f.size*slices.Max(f.batch) > 2<<20:
		return usagef(cmd, "--size must be 2 or more, and an append at most 2 MiB")
	}
	return nil
}

// load is one measurement to make.
type load struct {
	clients, batch int
}

// loads returns the measurements in the order of the table.
func (f *benchFlags) loads(cmd *cobra.Command) []load {
	var list []load
	for _, batch := range f.batch {
		for _, clients := range f.clients {
			list = append(list, load{clients, batch})
		}
	}
	if !cmd.Flags().Changed("clients") && !cmd.Flags().Changed("batch") {
		list = append(list, load{8, 100})
	}
	return list
}

func (a *app) bench(cmd *cobra.Command, f *benchFlags) error {
	if err := f.check(cmd); err != nil {
		return err
	}
	ctx := cmd.Context()
	c, s, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	hosts, err := f.hosts(&s)
	if err != nil {
		return err
	}
	w := &benchWriter{a: a, text: a.text(), bar: newProgress(a.stderr, 0)}
	defer w.bar.clear()
	where := "leader " + s.Leader
	if f.spread {
		where = "all members"
	}
	w.begin("%s of %s; %d-byte data, %d streams, %g s each", where, counted(len(s.Members), "member"), f.size, f.streams, f.seconds)
	for _, l := range f.loads(cmd) {
		w.bar.show(fmt.Sprintf("%s × %d…", counted(l.clients, "client"), l.batch))
		r := f.measure(ctx, hosts, l)
		w.bar.clear()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		switch {
		case r.Requests > 0:
		case r.err != nil:
			return fmt.Errorf("no append succeeded: %w", r.err)
		default:
			return fmt.Errorf("no append was answered within %g s; see 'cairn cluster status', or allow more --seconds", f.seconds)
		}
		if err := w.row(&r); err != nil {
			return err
		}
		if s, err := c.Discover(ctx); err == nil { // the leader may be another by now
			if now, err := f.hosts(&s); err == nil {
				hosts = now
			}
		}
	}
	return nil
}

// hosts returns host:port of the nodes to measure: the leader first, and with
// --spread every member that is alive.
func (f *benchFlags) hosts(s *client.Cluster) ([]string, error) {
	var hosts []string
	for _, m := range s.Members {
		u, err := url.Parse(m.HTTP)
		switch {
		case err != nil || u.Scheme != "http":
			return nil, fmt.Errorf("%s serves at %q; bench speaks plain http", m.ID, m.HTTP)
		case m.ID == s.Leader:
			hosts = slices.Insert(hosts, 0, u.Host)
		case f.spread && m.Alive:
			hosts = append(hosts, u.Host)
		}
	}
	if len(hosts) == 0 {
		return nil, errors.New("the cluster has no leader; see 'cairn cluster status'")
	}
	return hosts, nil
}

// benchRow is one measurement.
type benchRow struct {
	Clients         int     `json:"clients"`
	Batch           int     `json:"batch"`
	Seconds         float64 `json:"seconds"`
	Requests        uint64  `json:"requests"`
	EventsPerSecond float64 `json:"events_per_second"`
	P50             float64 `json:"p50_ms"`
	P99             float64 `json:"p99_ms"`
	Max             float64 `json:"max_ms"`
	Errors          uint64  `json:"errors"`

	err error // the last of Errors
}

// measure runs one load.
func (f *benchFlags) measure(ctx context.Context, hosts []string, l load) benchRow {
	begin := time.Now().Add(f.warmup)
	end := begin.Add(time.Duration(f.seconds * float64(time.Second)))
	clients := make([]benchClient, l.clients)
	var wg sync.WaitGroup
	for i := range clients {
		b := &clients[i]
		b.host, b.begin, b.end = hosts[i%len(hosts)], begin, end
		b.streams, b.stream = f.streams, rand.IntN(f.streams)
		firstID := uint64(0)
		if f.ids {
			firstID = 1 + rand.Uint64N(1e15)
		}
		b.request = newBenchRequest(b.host, l.batch, f.size, firstID)
		wg.Go(func() { b.run(ctx) })
	}
	wg.Wait()
	var all histogram
	r := benchRow{Clients: l.clients, Batch: l.batch, Seconds: f.seconds}
	for i := range clients {
		all.merge(&clients[i].took)
		r.Errors += clients[i].errors
		if clients[i].err != nil {
			r.err = clients[i].err
		}
	}
	r.Requests = all.total
	r.EventsPerSecond = math.Round(float64(all.total*uint64(l.batch)) / f.seconds)
	r.P50, r.P99, r.Max = milliseconds(all.quantile(0.5)), milliseconds(all.quantile(0.99)), milliseconds(all.max)
	return r
}

func milliseconds(d time.Duration) float64 { return math.Round(float64(d)/1e4) / 100 }

// benchClient sends one append after the other. Its goroutine owns it.
type benchClient struct {
	host            string
	request         *benchRequest
	begin, end      time.Time // of what is measured
	streams, stream int
	took            histogram
	errors          uint64
	err             error // the last one
}

func (b *benchClient) run(ctx context.Context) {
	for ctx.Err() == nil && time.Now().Before(b.end) {
		conn, err := dialBench(ctx, b.host, b.end.Add(5*time.Second))
		if err == nil {
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			err = b.drive(conn)
			stop()
			_ = conn.Close()
		}
		if err != nil && ctx.Err() == nil {
			b.errors++
			b.err = err
			b.rest(ctx)
		}
	}
}

// rest keeps a client that can't get through from spinning.
func (b *benchClient) rest(ctx context.Context) {
	timer := time.NewTimer(20 * time.Millisecond)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// drive sends until the time is over, or the connection breaks, or an append
// is not accepted.
func (b *benchClient) drive(conn *benchConn) error {
	sent := time.Now()
	for sent.Before(b.end) {
		b.request.prepare(b.stream)
		if b.stream++; b.stream == b.streams {
			b.stream = 0
		}
		if err := conn.do(b.request.bytes); err != nil {
			return err
		}
		now := time.Now()
		if !now.Before(b.begin) && now.Before(b.end) {
			b.took.add(now.Sub(sent))
		}
		sent = now
	}
	return nil
}

// benchWriter writes the table, row by row as they come.
type benchWriter struct {
	a    *app
	text bool
	bar  *progress
}

func (w *benchWriter) begin(format string, args ...any) {
	if w.text {
		fmt.Fprintf(w.a.stdout, format+"\n\n", args...)
		fmt.Fprintln(w.a.stdout, "clients  batch    events/s  appends/s        p50        p99        max  errors")
	}
}

func (w *benchWriter) row(r *benchRow) error {
	if !w.text {
		return w.a.printJSON(r)
	}
	_, err := fmt.Fprintf(w.a.stdout, "%7d  %5d  %10s  %9s  %9s  %9s  %9s  %6s\n", r.Clients, r.Batch,
		thousands(int(r.EventsPerSecond)), thousands(int(float64(r.Requests)/r.Seconds)),
		inMilliseconds(r.P50), inMilliseconds(r.P99), inMilliseconds(r.Max), thousands(r.Errors))
	if err == nil && r.Errors > 0 {
		w.bar.say("the last error: %s", oneLine(strings.TrimSpace(r.err.Error())))
	}
	return err
}

// inMilliseconds writes a duration with three digits that count.
func inMilliseconds(ms float64) string {
	switch {
	case ms < 10:
		return fmt.Sprintf("%.2f ms", ms)
	case ms < 100:
		return fmt.Sprintf("%.1f ms", ms)
	}
	return fmt.Sprintf("%.0f ms", ms)
}
