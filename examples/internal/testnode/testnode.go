// Package testnode runs a node of Cairn, alone, for the tests of the examples:
// what they show has to be true of the product, not of a stand-in.
package testnode

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// Start builds cairn-node, starts it with empty data, waits until it is ready
// and returns its address. It ends with the test.
func Start(t *testing.T) string {
	t.Helper()
	_, here, _, _ := runtime.Caller(0)
	folder := t.TempDir()
	program := filepath.Join(folder, "cairn-node")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./cmd/node")
	build.Dir = filepath.Join(filepath.Dir(here), "..", "..", "..")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	address := freeAddress(t)
	var output bytes.Buffer
	node := exec.Command(program, "-data", filepath.Join(folder, "data"), "-http", address,
		"-raft", freeAddress(t), "-gossip", freeAddress(t), "-log-level", "warn")
	node.Stdout, node.Stderr = &output, &output
	if err := node.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- node.Wait() }()
	t.Cleanup(func() {
		_ = node.Process.Signal(syscall.SIGTERM)
		select {
		case <-exited:
		case <-time.After(5 * time.Second):
			_ = node.Process.Kill()
			<-exited
		}
		if t.Failed() {
			t.Logf("the node wrote: %s", &output)
		}
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if ready(address) {
			return "http://" + address
		}
		if time.Now().After(deadline) {
			t.Fatal("the node is not ready after 20 s")
		}
	}
}

func ready(address string) bool {
	resp, err := http.Get("http://" + address + "/readyz")
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// freeAddress returns an address nobody listens at, over TCP and UDP.
func freeAddress(t *testing.T) string {
	t.Helper()
	for range 1000 {
		address := fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(9000))
		tcp, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		udp, err := net.ListenPacket("udp", address)
		_ = tcp.Close()
		if err == nil {
			_ = udp.Close()
			return address
		}
	}
	t.Fatal("no free port")
	return ""
}
