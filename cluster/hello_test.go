package cluster

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// meet runs both sides of a hello over a pipe.
func meet(t *testing.T, dialer, acceptor identity, kind connKind) (connKind, error, error) {
	t.Helper()
	a, b := net.Pipe()
	deadline := time.Now().Add(5 * time.Second)
	_, _ = a.SetDeadline(deadline), b.SetDeadline(deadline)
	done := make(chan error, 1)
	var got connKind
	go func() {
		var err error
		got, err = acceptHello(b, acceptor)
		done <- err
		_ = b.Close()
	}()
	err := dialHello(a, kind, dialer)
	_ = a.Close() // as dial does after an error
	acceptErr := <-done
	return got, err, acceptErr
}

func TestHello(t *testing.T) {
	secret, other := []byte("secret"), []byte("other")
	tests := []struct {
		name             string
		dialer, acceptor identity
		want             string // in the dialer's error; "" = they agree
	}{
		{"plain", identity{}, identity{}, ""},
		{"same log", identity{logID: "a"}, identity{logID: "a"}, ""},
		{"newcomer", identity{}, identity{logID: "a"}, ""},
		{"asked by an older one", identity{logID: "a"}, identity{}, ""},
		{"other log", identity{logID: "a"}, identity{logID: "b"}, "it is of log b, you are of log a"},
		{"same secret", identity{logID: "a", secret: secret}, identity{logID: "a", secret: secret}, ""},
		{"no secret", identity{}, identity{secret: secret}, "it asks for a cluster secret"},
		{"secret for nothing", identity{secret: secret}, identity{}, "it was given no cluster secret"},
		{"the node that is meant", identity{node: "x"}, identity{node: "x"}, ""},
		{"another node at the address", identity{node: "x"}, identity{node: "y"}, "it is node y, you mean x"},
		{"other secret", identity{secret: secret}, identity{secret: other}, "another cluster secret"},
	}
	for _, tt := range tests {
		for _, kind := range []connKind{connRaft, connPeer} {
			got, dialErr, acceptErr := meet(t, tt.dialer, tt.acceptor, kind)
			if tt.want == "" {
				if dialErr != nil || acceptErr != nil || got != kind {
					t.Errorf("%s: kind %d, %v, %v", tt.name, got, dialErr, acceptErr)
				}
				continue
			}
			if dialErr == nil || !strings.Contains(dialErr.Error(), tt.want) || !errors.Is(dialErr, errRefused) {
				t.Errorf("%s: the dialer was told %v, want %q", tt.name, dialErr, tt.want)
			}
			if acceptErr == nil {
				t.Errorf("%s: accepted", tt.name)
			}
		}
	}
}

// A dialer without the secret can't pass as one that has it by sending back
// what it is sent.
func TestHello_ForgedProof(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	done := make(chan error, 1)
	go func() {
		_, err := acceptHello(b, identity{secret: []byte("secret")})
		done <- err
	}()
	hello := append([]byte(helloMagic), 1, 0, byte(connPeer), flagSecret, 0, 0)
	hello = appendNonce(hello)
	if _, err := a.Write(hello); err != nil {
		t.Fatal(err)
	}
	reply := make([]byte, replyHead+1+nonceSize+32)
	if _, err := io.ReadFull(a, reply); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write(reply[len(reply)-32:]); err != nil { // its own proof
		t.Fatal(err)
	}
	status := make([]byte, 1)
	if _, err := io.ReadFull(a, status); err != nil || status[0] == statusOK {
		t.Errorf("status %d, %v", status[0], err)
	}
	if err := <-done; err == nil {
		t.Error("accepted")
	}
}

func TestHello_OtherVersion(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	go func() { _, _ = acceptHello(b, identity{}); _ = b.Close() }()
	hello := append([]byte(helloMagic), 0, 0, byte(connPeer), 0, 0, 0)
	binary.LittleEndian.PutUint16(hello[len(helloMagic):], protocolVersion+1)
	if _, err := a.Write(appendNonce(hello)); err != nil {
		t.Fatal(err)
	}
	reply, err := io.ReadAll(a)
	if err != nil || !strings.Contains(string(reply), "speaks protocol 2, this one 1") {
		t.Errorf("answer %q, %v", reply, err)
	}
}

// Golden bytes: nodes of different versions must understand each other's hello.
func TestHello_Form(t *testing.T) {
	var sent bytes.Buffer
	conn := struct {
		io.Reader
		io.Writer
	}{strings.NewReader(""), &sent}
	_ = dialHello(conn, connRaft, identity{logID: "log", node: "n", secret: []byte("s")})
	got := sent.Bytes()
	want := "CAIRN\x00\x01\x00\x01\x01\x03log\x01n"
	if !bytes.HasPrefix(got, []byte(want)) || len(got) != len(want)+nonceSize {
		t.Errorf("hello %q", got)
	}
}

func FuzzHello(f *testing.F) {
	f.Add([]byte("CAIRN\x00\x01\x00\x01\x00\x03log\x000123456789abcdef"), false)
	f.Add([]byte("CAIRN\x00\x01\x00\x02\x01\x00\x000123456789abcdef"), true)
	f.Fuzz(func(t *testing.T, b []byte, secret bool) {
		id := identity{}
		if secret {
			id.secret = []byte("secret")
		}
		conn := struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(b), io.Discard}
		if _, err := acceptHello(conn, id); err == nil && secret {
			t.Error("accepted without a proof")
		}
		_ = dialHello(conn, connPeer, id)
	})
}
