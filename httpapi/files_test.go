package httpapi

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// openFiles are the files of a fakeStore, and how many of them are open.
type openFiles struct {
	*fakeStore
	open atomic.Int64
}

func (f *openFiles) OpenSegment(name string) (File, error) {
	return f.count(f.fakeStore.OpenSegment(name))
}

func (f *openFiles) OpenState(snapshot, name string) (File, error) {
	return f.count(f.fakeStore.OpenState(snapshot, name))
}

func (f *openFiles) count(file File, err error) (File, error) {
	if err == nil {
		f.open.Add(1)
		file.Closer = f
	}
	return file, err
}

func (f *openFiles) Close() error {
	f.open.Add(-1)
	return nil
}

// serveFiles serves a log of three events whose file has the contents given.
func serveFiles(t *testing.T, contents []byte, change ...func(*Options)) *testServer {
	t.Helper()
	store := filled(2) // and its birth
	store.file = contents
	files := &openFiles{fakeStore: store}
	t.Cleanup(func() {
		if n := files.open.Load(); n != 0 {
			t.Errorf("%d files are open", n)
		}
	})
	return serve(t, store, append(change, func(o *Options) { o.Files = files })...)
}

func TestFiles_List(t *testing.T) {
	ts := serveFiles(t, []byte("0123456789"))
	a := ts.get("/v1/segments")
	var list LogFiles
	if err := json.Unmarshal([]byte(a.body), &list); err != nil || a.status != 200 {
		t.Fatalf("%d %s, %v", a.status, a.body, err)
	}
	if list.Log != testLog || list.Position != 3 || len(list.Segments) != 1 || list.Segments[0] != (SegmentFile{Name: fakeFile, Base: 1, Last: 3, Size: 10}) {
		t.Errorf("list is %+v", list)
	}
	if strings.Contains(a.body, `"hash"`) {
		t.Errorf("%s names a hash of what is not sealed", a.body)
	}
	if a.header.Get("Cairn-Position") != "3" || a.header.Get("Cairn-Log") != testLog {
		t.Errorf("header %v", a.header)
	}
	// It is as recent as any read, and waits like one.
	ts.store.set(func() { ts.store.indexed = errFakeNoLeader })
	if a := ts.get("/v1/segments"); a.status != 503 {
		t.Errorf("without a leader: %d %s", a.status, a.body)
	}
	if a := ts.get("/v1/segments?consistency=local"); a.status != 200 {
		t.Errorf("local: %d %s", a.status, a.body)
	}
	if a := ts.get("/v1/segments?consistency=local&min_position=9&timeout=1ms"); a.status != 503 {
		t.Errorf("a position that is not here: %d %s", a.status, a.body)
	}
}

// Files of the log and of a snapshot's state alike, whole and in parts.
func TestFiles_Read(t *testing.T) {
	const contents = "0123456789"
	ts := serveFiles(t, []byte(contents))
	for _, path := range []string{"/v1/segments/" + fakeFile, "/v1/snapshots/snap/state/" + fakeFile} {
		for _, tt := range []struct {
			ranges, body, contentRange string
			status                     int
		}{
			{"", contents, "", 200},
			{"bytes=0-3", "0123", "bytes 0-3/10", 206},
			{"bytes=4-6", "456", "bytes 4-6/10", 206},
			{"bytes=9-9", "9", "bytes 9-9/10", 206},
			{"bytes=7-", "789", "bytes 7-9/10", 206},
			{"bytes=7-100", "789", "bytes 7-9/10", 206},
			{"bytes=-2", "89", "bytes 8-9/10", 206},
			{"bytes=-100", contents, "bytes 0-9/10", 206},
			{"bytes=10-", "", "bytes */10", 416},
			{"bytes=12-20", "", "bytes */10", 416},
			{"bytes=5-4", "", "", 416},
			{"bytes=x", "", "", 416},
			{"furlongs=1-2", "", "", 416},
		} {
			var headers []string
			if tt.ranges != "" {
				headers = []string{"Range: " + tt.ranges}
			}
			a := ts.get(path, headers...)
			if a.status != tt.status || a.header.Get("Content-Range") != tt.contentRange {
				t.Errorf("%s, %s: %d, range %q", path, tt.ranges, a.status, a.header.Get("Content-Range"))
			}
			if a.status == 416 {
				if err := isProblem(a, InvalidRequest); err != "" {
					t.Errorf("%s, %s: %s", path, tt.ranges, err)
				}
				continue
			}
			if a.body != tt.body || a.header.Get("Content-Type") != "application/octet-stream" || a.header.Get("Accept-Ranges") != "bytes" {
				t.Errorf("%s, %s: %q, %v", path, tt.ranges, a.body, a.header)
			}
		}
		a := ts.do("HEAD", path, "")
		if a.status != 200 || a.header.Get("Content-Length") != "10" || a.body != "" {
			t.Errorf("HEAD %s: %d, %v", path, a.status, a.header)
		}
		if a := ts.do("HEAD", path, "", "Range: bytes=10-"); a.status != 416 {
			t.Errorf("HEAD %s beyond the end: %d", path, a.status)
		}
		if a := ts.get(path, "Range: bytes=0-1,8-9"); a.status != 206 || !strings.HasPrefix(a.header.Get("Content-Type"), "multipart/byteranges") {
			t.Errorf("two ranges: %d, %v", a.status, a.header)
		}
	}
}

// isProblem says how an answer is not the problem document of a code.
func isProblem(a answer, code Code) string {
	var p struct {
		Type   string
		Status int
	}
	if a.header.Get("Content-Type") != "application/problem+json" {
		return "type " + a.header.Get("Content-Type")
	}
	if err := json.Unmarshal([]byte(a.body), &p); err != nil || p.Status != a.status || p.Type != "urn:cairn:error:"+string(code) {
		return a.body
	}
	return ""
}

func TestFiles_Refused(t *testing.T) {
	ts := serveFiles(t, []byte("0123456789"))
	for path, code := range map[string]Code{
		"/v1/segments/none":                                   NotFound,
		"/v1/segments/..":                                     NotFound,
		"/v1/segments/%2e%2e":                                 NotFound,
		"/v1/segments/..%2F..%2FCURRENT":                      NotFound,
		"/v1/segments/%2Fetc%2Fpasswd":                        NotFound,
		"/v1/segments/%00":                                    NotFound,
		"/v1/segments/":                                       NotFound,
		"/v1/segments/../segments/" + fakeFile:                NotFound, // no path is made simpler
		"/v1/segments/" + fakeFile + "/":                      NotFound,
		"/v1/segments/" + fakeFile + "?x=1":                   InvalidRequest,
		"/v1/segments/" + fakeFile + "?min_position=1":        InvalidRequest,
		"/v1/segments?limit=1":                                InvalidRequest,
		"/v1/snapshots/snap/state/none":                       NotFound,
		"/v1/snapshots/snap/state/..%2FMANIFEST":              NotFound,
		"/v1/snapshots/old/state/" + fakeFile:                 NotFound,
		"/v1/snapshots/..%2Fsnap/state/" + fakeFile:           NotFound,
		"/v1/snapshots/snap/state/" + fakeFile + "?offset=10": InvalidRequest,
		"/v1/snapshots":                                       MethodNotAllowed,
	} {
		a := ts.get(path)
		if err := isProblem(a, code); err != "" {
			t.Errorf("%s: %d %s, want %s", path, a.status, err, code)
		}
	}
	if a := ts.post("/v1/segments/"+fakeFile, ""); a.status != 405 || a.header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: %d, %v", a.status, a.header)
	}
}

func TestFiles_TakeSnapshot(t *testing.T) {
	ts := serveFiles(t, []byte("0123456789"))
	a := ts.post("/v1/snapshots", "")
	var info SnapshotInfo
	if err := json.Unmarshal([]byte(a.body), &info); err != nil || a.status != 201 || info != (SnapshotInfo{ID: "snap", Index: 9, Position: 3, Bytes: 10}) {
		t.Errorf("%d %s, %v", a.status, a.body, err)
	}
	if a.header.Get("Cairn-Position") != "3" {
		t.Errorf("header %v", a.header)
	}
	// What a page of another site can send is refused.
	for _, headers := range [][]string{nil, {"Content-Type: text/plain"}, {"Content-Type: application/x-www-form-urlencoded"}} {
		a := ts.do("POST", "/v1/snapshots", "", headers...)
		if err := isProblem(a, UnsupportedMedia); err != "" || a.status != 415 {
			t.Errorf("%v: %d %s", headers, a.status, err)
		}
	}
	if a := ts.post("/v1/snapshots?x=1", ""); a.status != 400 {
		t.Errorf("a parameter: %d %s", a.status, a.body)
	}
}

// All files together go out no faster than they may.
func TestFiles_Rate(t *testing.T) {
	const rate, size, readers = 2 << 20, 384 << 10, 2
	contents := bytes.Repeat([]byte("x"), size)
	ts := serveFiles(t, contents, func(o *Options) { o.FileRate = rate })
	begun := time.Now()
	var reading sync.WaitGroup
	for range readers {
		reading.Go(func() {
			if a := ts.get("/v1/segments/" + fakeFile); len(a.body) != size {
				t.Errorf("%d of %d bytes", len(a.body), size)
			}
		})
	}
	reading.Wait()
	// The first piece waits for nothing.
	least := time.Duration(float64(readers*size-ratePiece) / rate * float64(time.Second))
	if took := time.Since(begun); took < least*9/10 {
		t.Errorf("%d bytes took %s, at %d a second at least %s are due", readers*size, took, rate, least)
	}
}

// A client that leaves ends the sending; one too many is turned away.
func TestFiles_Leaving(t *testing.T) {
	contents := make([]byte, 8<<20)
	ts := serveFiles(t, contents, func(o *Options) { o.FileRate, o.MaxStreams = 1<<20, 1 })
	resp, err := http.Get(ts.url + "/v1/segments/" + fakeFile)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if a := ts.get("/v1/segments/" + fakeFile); a.status != 503 {
		t.Errorf("a second reader: %d", a.status)
	}
	_ = resp.Body.Close()
	deadline := time.Now().Add(5 * time.Second)
	for ts.get("/v1/segments/"+fakeFile, "Range: bytes=0-9").status != 206 {
		if time.Now().After(deadline) {
			t.Fatal("the first reader is still served")
		}
		time.Sleep(5 * time.Millisecond)
	}
}
