package node

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"cairn/event"
	"cairn/fsm"
	"cairn/httpapi"
	"cairn/snapshot"
)

// scanEvents is how many events the log of BenchmarkScan has.
const scanEvents = 300_000

// BenchmarkScan reads a whole log as NDJSON over one connection of loopback. One
// operation is one event. The client is a process of its own that counts lines;
// what both spend is told apart.
func BenchmarkScan(b *testing.B) {
	url := scanServer(b)
	for _, query := range []string{"", "order=desc", "type=FundsDeposited", "tag=customer:9"} {
		b.Run(cmp.Or(query, "all"), func(b *testing.B) {
			events, rounds := 0, 1+b.N/scanEvents
			var client, took time.Duration
			before := cpuTime(b)
			for range rounds {
				n, cpu, elapsed := countLines(b, url+"?"+query)
				events, client, took = events+n, client+cpu, took+elapsed
			}
			spent := cpuTime(b) - before
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(events)/took.Seconds(), "events/s")
			b.ReportMetric(float64(spent.Nanoseconds())/float64(events), "server-cpu-ns/event")
			b.ReportMetric(float64(client.Nanoseconds())/float64(events), "client-cpu-ns/event")
		})
	}
}

// alone is the cluster, and what else it needs, of a node that is only read.
type alone struct {
	httpapi.Appender
	httpapi.Cluster
	httpapi.Files
}

func (alone) ReadIndex(context.Context) error { return nil }
func (alone) Leader() (id, url string)        { return "", "" }

// scanServer serves a machine on disk with scanEvents events.
func scanServer(b *testing.B) (url string) {
	b.Chdir(b.TempDir())
	fs, logger := vfs.Default, slog.New(slog.DiscardHandler)
	if err := errors.Join(snapshot.MakeDir(fs, "logs", 0o755), snapshot.CreateGenerations(fs, "logs/main")); err != nil {
		b.Fatal(err)
	}
	gens, err := snapshot.OpenGenerations(fs, "logs/main", "raft/snapshots")
	if err != nil {
		b.Fatal(err)
	}
	m, err := fsm.Open(fsm.Options{FS: fs, Generations: gens, Logger: logger})
	if err == nil {
		err = m.Cut()
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = m.Close() })
	fillForScan(b, m)
	s, err := httpapi.New(httpapi.Options{
		NodeID: "node-1", Reads: reads{m}, Waiter: reads{m}, Appender: alone{}, Cluster: alone{}, Files: alone{},
		Projections: projections{machine: m}, Types: types{projections{machine: m}},
		Classify: classify, Logger: logger,
	})
	if err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	b.Cleanup(func() {
		if err := errors.Join(s.Shutdown(context.Background()), <-served); err != nil {
			b.Error(err)
		}
	})
	return "http://" + l.Addr().String() + "/v1/events"
}

// fillForScan appends events of 256 bytes with three tags, 100 an entry.
func fillForScan(b *testing.B, m *fsm.Machine) {
	created, err := event.SystemCommand(event.StreamLog, event.TypeLogCreated,
		event.LogCreated{LogID: "0190a5b6-7c00-7000-8000-000000000001", SegmentSize: 64 << 20, ClusterVersion: 1})
	if err != nil {
		b.Fatal(err)
	}
	command, n := created, 0
	for index := uint64(1); n <= scanEvents; index++ {
		answer := m.Apply(&raft.Log{Index: index, Term: 1, Data: event.EncodeEntry(nil, time.Now().UnixNano(), [][]byte{event.EncodeCommand(nil, &command)})})
		if err, failed := answer.(error); failed {
			b.Fatal(err)
		}
		command = event.Command{Kind: event.KindAppend}
		for range 100 {
			n++
			data := fmt.Sprintf(`{"account":%d,"amount":%d.25,"currency":"EUR","text":"`, n%10_000, n)
			data += strings.Repeat("x", 254-len(data)) + `"}`
			command.Append.Events = append(command.Append.Events, event.Event{
				Stream: "account-" + strconv.Itoa(n%10_000), Type: "FundsDeposited", ID: event.NewID(), Data: []byte(data),
				Tags: []string{"customer:" + strconv.Itoa(n%50), "day:" + strconv.Itoa(n/1000), "region:north"},
			})
		}
	}
}

// cpuTime is what this process has spent.
func cpuTime(t testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// countLines has another process read url, and returns how many lines there
// were, what CPU it took to read them and how long.
func countLines(b *testing.B, url string) (lines int, cpu, took time.Duration) {
	program, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(program, "-test.run=^TestScanClient$")
	cmd.Env = append(os.Environ(), "SCAN_URL="+url)
	out, err := cmd.Output()
	if err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	if _, err := fmt.Sscan(string(out), &lines, &cpu, &took); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	return lines, cpu, took
}

// TestScanClient is no test but the client of BenchmarkScan.
func TestScanClient(t *testing.T) {
	url := os.Getenv("SCAN_URL")
	if url == "" {
		t.Skip("runs only as a process of BenchmarkScan")
	}
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/x-ndjson")
	begin, spent := time.Now(), cpuTime(t)
	resp, err := (&http.Transport{ReadBufferSize: 256 << 10}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines, buf := 0, make([]byte, 256<<10)
	for err == nil {
		var n int
		n, err = resp.Body.Read(buf)
		lines += bytes.Count(buf[:n], []byte{'\n'})
	}
	if err != io.EOF || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v, after %d lines", resp.Status, err, lines)
	}
	fmt.Println(lines, int64(cpuTime(t)-spent), int64(time.Since(begin)))
}
