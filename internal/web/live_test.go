package web_test

import (
	"bufio"
	"context"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"bootd/boot"
)

// follow reads the messages of a stream until ctx ends.
func follow(t *testing.T, ctx context.Context, url, after string) <-chan string {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	if after != "" {
		r.Header.Set("Last-Event-ID", after)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if got := resp.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("type %s", got)
	}
	out := make(chan string, 100)
	lines := bufio.NewScanner(resp.Body)
	if !lines.Scan() || lines.Text() != ": hello" {
		t.Fatalf("the stream begins with %q", lines.Text())
	}
	go func() {
		defer close(out)
		for lines.Scan() {
			if lines.Text() != "" {
				out <- lines.Text()
			}
		}
	}()
	return out
}

func next(t *testing.T, c <-chan string) string {
	t.Helper()
	select {
	case s := <-c:
		return s
	case <-time.After(time.Minute):
		t.Fatal("nothing is told")
		return ""
	}
}

func TestLive(t *testing.T) {
	s := small()
	server := httptest.NewServer(s.handler(t))
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := len(s.Past(0))

	fresh := follow(t, ctx, server.URL, "")
	again := follow(t, ctx, server.URL, "1")
	// What was missed comes at once.
	var told string
	for !strings.Contains(told, mac(6).String()) {
		told += next(t, again)
	}
	if strings.Contains(told, "id: 1\n") {
		t.Errorf("told once more:\n%s", told)
	}
	s.event(s.machines["node2"], boot.Event{Time: start, Stage: boot.Ignition, Client: boot.Initramfs})
	if got, want := next(t, fresh), "id: "+strconv.Itoa(n+1); got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got := next(t, fresh); got != "data: "+mac(2).String() {
		t.Errorf("%q", got)
	}
	// Many at once are one message, or a few.
	for i := range 500 {
		s.event(s.machines["node2"], boot.Event{Time: start, Stage: boot.Refused, Text: strconv.Itoa(i)})
	}
	messages, last := 0, ""
	for !strings.HasPrefix(last, "id: "+strconv.Itoa(n+501)) {
		last = next(t, fresh)
		messages++
	}
	if messages > 400 {
		t.Errorf("%d messages of 500 events", messages)
	}
	cancel()
	for range fresh {
	}
}

func TestLiveEndsWithTheServer(t *testing.T) {
	s := small()
	h := s.handler(t)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/live", nil).WithContext(ctx))
	}()
	cancel()
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("the stream does not end")
	}
}
