package lab

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"testing"
	"time"
)

// fakeVariable makes this test binary another program: see fakes.
const fakeVariable = "JEPSEN_LAB_FAKE"

// refused is why Enter did not work, if it did not.
var refused error

func TestMain(m *testing.M) {
	if name := os.Getenv(fakeVariable); name != "" {
		os.Exit(fakes[name]())
	}
	if refused = Enter(); refused != nil {
		fmt.Fprintf(os.Stderr, "the lab's tests can't run here: %v\n", refused)
		if !MaySkip() {
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// fakes are what this binary is by the value of fakeVariable.
var fakes = map[string]func() int{
	"serve":  serve,
	"crash":  crash,
	"status": enterAndReturn,
	"wait":   enterAndWait,
	"panic":  enterAndPanic,
}

// serve is a node for tests of links: it answers, and asks another node for
// what it answers.
func serve() int {
	address := ""
	for i, arg := range os.Args {
		if arg == "-http" {
			address = os.Args[i+1]
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/hello", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })
	mux.HandleFunc("/ask", func(w http.ResponseWriter, r *http.Request) {
		answer, err := newClient(patience).Get(r.FormValue("url"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer answer.Body.Close()
		_, _ = io.Copy(w, answer.Body)
	})
	mux.HandleFunc("/many", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, manyBytes)) })
	l, err := net.Listen("tcp", address)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("serving")
	fmt.Println(http.Serve(l, mux))
	return 1
}

// manyBytes is the size of the answer to /many.
const manyBytes = 4 << 20

func crash() int {
	fmt.Println("what a pity")
	return 3
}

func enterAndReturn() int {
	if err := Enter(); err != nil {
		fmt.Println(err)
		return 1
	}
	return 7
}

// enterAndWait says so when it is inside, and ends well at SIGTERM only.
func enterAndWait() int {
	if err := Enter(); err != nil {
		fmt.Println(err)
		return 1
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	fmt.Println("inside")
	select {
	case <-term:
		return 0
	case <-time.After(20 * time.Second):
		return 1
	}
}

// enterAndPanic runs a lab in the current folder and panics at SIGTERM.
func enterAndPanic() int {
	if err := Enter(); err != nil {
		fmt.Println(err)
		return 1
	}
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	l, err := New(Options{Nodes: 1, Binary: os.Args[0], Dir: "."})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fake(l.Node(1), "serve")
	if err := l.Node(1).Start(); err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("inside")
	<-term
	panic("as asked")
}

// inside skips a test where the kernel refuses what it needs.
func inside(t *testing.T) {
	t.Helper()
	if refused != nil {
		t.Skip(refused)
	}
}

// newLab is a lab of fake nodes, none of them started.
func newLab(t *testing.T, nodes int) *Lab {
	t.Helper()
	inside(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	l, err := New(Options{
		Nodes: nodes, Binary: self, Dir: t.TempDir(), Seed: 1,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, n := range l.Nodes() {
		fake(n, "serve")
	}
	return l
}

// fake makes the next start of n one of the fakes.
func fake(n *Node, name string) {
	n.Change(func(c *Command) { c.Env = []string{fakeVariable + "=" + name} })
}

// start starts nodes and waits until they answer.
func start(t *testing.T, nodes ...*Node) {
	t.Helper()
	for _, n := range nodes {
		if err := n.Start(); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range nodes {
		eventually(t, func() error { return get(n.URL() + "/hello") })
	}
}

// patience is how long a request may take.
const patience = 500 * time.Millisecond

// newClient makes a connection for each request. The dial has its own bound
// because it goes on when its request has been given up.
func newClient(timeout time.Duration) *http.Client {
	dial := (&net.Dialer{Timeout: timeout}).DialContext
	return &http.Client{Timeout: timeout, Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial}}
}

// get fails if the answer does not come in time.
func get(url string) error {
	answer, err := newClient(patience).Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("%s: %s", answer.Status, body)
	}
	return nil
}

// ask lets one node ask another.
func ask(from, to *Node) error { return get(from.URL() + "/ask?url=" + to.URL() + "/hello") }

// eventually tries until f succeeds, at most 10 s.
func eventually(t *testing.T, f func() error) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("even after 10 s: %v", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
