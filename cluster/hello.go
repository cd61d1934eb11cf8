package cluster

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Every connection between nodes opens with a hello. Integers are
// little-endian, a text is its length in one byte and its bytes.
//
//	dialer → acceptor   ┌──────────┬─────────────┬─────────┬──────────┬────────┬─────────┬──────────┐
//	                    │ magic 6B │ version u16 │ kind u8 │ flags u8 │ log id │ node id │ nonce 16B│
//	                    └──────────┴─────────────┴─────────┴──────────┴────────┴─────────┴──────────┘
//	acceptor → dialer   ┌──────────┬─────────────┬───────────┬─────────┬──────────┬──────────┐
//	                    │ magic 6B │ version u16 │ status u8 │ message │ nonce 16B│ proof 32B│
//	                    └──────────┴─────────────┴───────────┴─────────┴──────────┴──────────┘
//	only with a secret:
//	dialer → acceptor   │ proof 32B │
//	acceptor → dialer   │ status u8 │
//
// The log id may be empty, before a log's birth. The node id is that of the node
// which the dialer means, empty for whoever is there; another one refuses. Raft's
// library sends a voter's messages to an address and nothing in them says whom
// they are for: without this a node whose disk was wiped, back under a new id at
// its old address, would be counted, and would vote, as the voter it was.
//
// Flag bit 0: the dialer has a secret. A proof is HMAC-SHA256 under the cluster secret over who proves, the
// dialer's whole message and both nonces, so each side shows that it knows the
// secret without showing it, and no answer can be used twice; without a secret
// it is zero. The hello authenticates the peer; it does not encrypt what
// follows.
const (
	helloMagic      = "CAIRN\x00"
	protocolVersion = 1

	helloHead  = len(helloMagic) + 2 + 1 + 1
	replyHead  = len(helloMagic) + 2 + 1
	nonceSize  = 16
	flagSecret = 1

	statusOK      = 0
	statusRefused = 1
)

// connKind says what a connection carries after its hello.
type connKind byte

const (
	connRaft connKind = 1 // Raft's messages, as its library sends them
	connPeer connKind = 2 // HTTP/1.1, peer.go
)

// errRefused says that the other side does not take this connection.
var errRefused = errors.New("connection refused by the other node")

// identity is what a node says of itself.
type identity struct {
	logID  string
	secret []byte
	node   string // of the acceptor, who it is; of the dialer, whom it means
}

func proof(secret []byte, who string, hello, nonce []byte) []byte {
	if len(secret) == 0 {
		return make([]byte, sha256.Size)
	}
	mac := hmac.New(sha256.New, secret)
	for _, b := range [][]byte{[]byte(who), hello, nonce} {
		var n [4]byte
		binary.LittleEndian.PutUint32(n[:], uint32(len(b)))
		mac.Write(n[:])
		mac.Write(b)
	}
	return mac.Sum(nil)
}

const (
	proofDialer   = "cairn dialer"
	proofAcceptor = "cairn acceptor"
)

// dialHello opens a connection from the dialer's side. The caller has set a
// deadline.
func dialHello(conn io.ReadWriter, kind connKind, id identity) error {
	hello := append([]byte(helloMagic), 0, 0, byte(kind), 0)
	binary.LittleEndian.PutUint16(hello[len(helloMagic):], protocolVersion)
	if len(id.secret) > 0 {
		hello[helloHead-1] = flagSecret
	}
	hello = append(append(hello, byte(len(id.logID))), id.logID...)
	hello = append(append(hello, byte(len(id.node))), id.node...)
	hello = appendNonce(hello)
	if _, err := conn.Write(hello); err != nil {
		return fmt.Errorf("send hello: %w", err)
	}
	head := make([]byte, replyHead)
	if _, err := io.ReadFull(conn, head); err != nil {
		return fmt.Errorf("read the answer to hello: %w", err)
	}
	if err := checkMagic(head); err != nil {
		return err
	}
	message, err := readText(conn)
	if err != nil {
		return fmt.Errorf("read the answer to hello: %w", err)
	}
	if head[replyHead-1] != statusOK {
		return fmt.Errorf("%w: %s", errRefused, message)
	}
	tail := make([]byte, nonceSize+sha256.Size)
	if _, err := io.ReadFull(conn, tail); err != nil {
		return fmt.Errorf("read the answer to hello: %w", err)
	}
	nonce, theirs := tail[:nonceSize], tail[nonceSize:]
	if !hmac.Equal(theirs, proof(id.secret, proofAcceptor, hello, nonce)) {
		return fmt.Errorf("%w: the other node has another cluster secret", errRefused)
	}
	if len(id.secret) == 0 {
		return nil
	}
	if _, err := conn.Write(proof(id.secret, proofDialer, hello, nonce)); err != nil {
		return fmt.Errorf("send proof: %w", err)
	}
	var status [1]byte
	if _, err := io.ReadFull(conn, status[:]); err != nil {
		return fmt.Errorf("read the answer to the proof: %w", err)
	}
	if status[0] != statusOK {
		return fmt.Errorf("%w: it has another cluster secret", errRefused)
	}
	return nil
}

// acceptHello opens a connection from the acceptor's side and returns what it
// will carry. The caller has set a deadline, and closes the connection after an
// error.
func acceptHello(conn io.ReadWriter, id identity) (connKind, error) {
	hello := make([]byte, helloHead)
	if _, err := io.ReadFull(conn, hello); err != nil {
		return 0, fmt.Errorf("read hello: %w", err)
	}
	if !bytes.HasPrefix(hello, []byte(helloMagic)) {
		return 0, errors.New("read hello: not a Cairn node")
	}
	logID, err := readText(conn)
	if err != nil {
		return 0, fmt.Errorf("read hello: %w", err)
	}
	node, err := readText(conn)
	if err != nil {
		return 0, fmt.Errorf("read hello: %w", err)
	}
	hello = append(append(hello, byte(len(logID))), logID...)
	hello = append(append(hello, byte(len(node))), node...)
	nonce := make([]byte, nonceSize)
	if _, err := io.ReadFull(conn, nonce); err != nil {
		return 0, fmt.Errorf("read hello: %w", err)
	}
	hello = append(hello, nonce...)
	if err := checkMagic(hello); err != nil {
		return 0, refuse(conn, err.Error()) // only now: closing with bytes unread would throw the answer away
	}
	kind, secret := connKind(hello[helloHead-2]), hello[helloHead-1] == flagSecret
	switch {
	case kind != connRaft && kind != connPeer:
		return 0, refuse(conn, fmt.Sprintf("connections of kind %d are unknown", kind))
	case logID != "" && id.logID != "" && logID != id.logID:
		return 0, refuse(conn, fmt.Sprintf("it is of log %s, you are of log %s", id.logID, logID))
	case node != "" && node != id.node:
		return 0, refuse(conn, fmt.Sprintf("it is node %s, you mean %s", id.node, node))
	case secret && len(id.secret) == 0:
		return 0, refuse(conn, "it was given no cluster secret")
	case !secret && len(id.secret) > 0:
		return 0, refuse(conn, "it asks for a cluster secret")
	}
	return kind, acceptProof(conn, id.secret, hello)
}

func acceptProof(conn io.ReadWriter, secret, hello []byte) error {
	reply := appendReply(nil, statusOK, "")
	reply = appendNonce(reply)
	nonce := reply[len(reply)-nonceSize:]
	reply = append(reply, proof(secret, proofAcceptor, hello, nonce)...)
	if _, err := conn.Write(reply); err != nil {
		return fmt.Errorf("answer hello: %w", err)
	}
	if len(secret) == 0 {
		return nil
	}
	theirs := make([]byte, sha256.Size)
	if _, err := io.ReadFull(conn, theirs); err != nil {
		return fmt.Errorf("read proof: %w", err)
	}
	status, err := byte(statusOK), error(nil)
	if !hmac.Equal(theirs, proof(secret, proofDialer, hello, nonce)) {
		status, err = statusRefused, errors.New("the other node has another cluster secret")
	}
	if _, werr := conn.Write([]byte{status}); err == nil {
		err = werr
	}
	return err
}

// refuse tells the dialer why, and returns the same as an error.
func refuse(conn io.Writer, why string) error {
	if _, err := conn.Write(appendReply(nil, statusRefused, why)); err != nil {
		return fmt.Errorf("refuse (%s): %w", why, err)
	}
	return fmt.Errorf("refused: %s", why)
}

func appendReply(dst []byte, status byte, message string) []byte {
	message = message[:min(len(message), 255)]
	dst = append(dst, helloMagic...)
	dst = binary.LittleEndian.AppendUint16(dst, protocolVersion)
	dst = append(dst, status, byte(len(message)))
	return append(dst, message...)
}

func appendNonce(dst []byte) []byte {
	var nonce [nonceSize]byte
	_, _ = rand.Read(nonce[:]) // never fails: crypto/rand ends the process instead
	return append(dst, nonce[:]...)
}

func readText(r io.Reader) (string, error) {
	var n [1]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return "", err
	}
	b := make([]byte, n[0])
	_, err := io.ReadFull(r, b)
	return string(b), err
}

// checkMagic reports whether the other side is a node that speaks our protocol.
func checkMagic(head []byte) error {
	if !bytes.HasPrefix(head, []byte(helloMagic)) {
		return errors.New("the other side is not a Cairn node")
	}
	if v := binary.LittleEndian.Uint16(head[len(helloMagic):]); v != protocolVersion {
		return fmt.Errorf("the other node speaks protocol %d, this one %d", v, protocolVersion)
	}
	return nil
}
