package web_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"bootd/internal/web"
)

var inside = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "inside") })

func sessions(t *testing.T, now *time.Time) *web.Sessions {
	t.Helper()
	s, err := web.NewSessions(bytes.Repeat([]byte{7}, 32), func() time.Time { return *now })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// login shows a code and returns the answer.
func login(t *testing.T, h http.Handler, code, next string) *httptest.ResponseRecorder {
	t.Helper()
	return post(t, h, "/login", url.Values{"code": {code}, "next": {next}})
}

// visit asks for a page with the cookies of an answer.
func visit(h http.Handler, path string, from *httptest.ResponseRecorder) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, path, nil)
	if from != nil {
		for _, c := range from.Result().Cookies() {
			r.AddCookie(c)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestSessions(t *testing.T) {
	now := start
	s := sessions(t, &now)
	h := s.Guard(inside)

	// Without a session there is nothing but the way to one.
	if w := visit(h, "/machines?q=a", nil); w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/login?next=%2Fmachines%3Fq%3Da" {
		t.Errorf("status %d, to %s", w.Code, w.Header().Get("Location"))
	}
	if w := visit(h, "/live", nil); w.Code != http.StatusForbidden {
		t.Errorf("events without a session: %d", w.Code)
	}
	if w := post(t, h, "/machines/node1/do/forget", nil); w.Code != http.StatusForbidden || w.Body.String() == "inside" {
		t.Errorf("an order without a session: %d", w.Code)
	}
	code := s.Code()
	if w := visit(h, "/login?code="+code, nil); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `value="`+code+`"`) || len(w.Result().Cookies()) > 0 {
		t.Errorf("to look at the link is to use it: %d", w.Code)
	}

	// A code is good once.
	in := login(t, h, strings.ToLower(code), "/machines?q=a")
	if in.Code != http.StatusSeeOther || in.Header().Get("Location") != "/machines?q=a" {
		t.Fatalf("status %d, to %s", in.Code, in.Header().Get("Location"))
	}
	c := in.Result().Cookies()[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.MaxAge != 12*3600 {
		t.Errorf("cookie %+v", c)
	}
	if w := visit(h, "/machines", in); w.Body.String() != "inside" {
		t.Errorf("status %d", w.Code)
	}
	for _, again := range []string{code, "", "WRONG"} {
		if w := login(t, h, again, ""); w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "That code is not good") {
			t.Errorf("code %q: status %d", again, w.Code)
		}
	}

	// A restart ends no session; another key, time and a changed cookie do.
	if w := visit(sessions(t, &now).Guard(inside), "/", in); w.Body.String() != "inside" {
		t.Error("a restart ends the session")
	}
	other, err := web.NewSessions(bytes.Repeat([]byte{8}, 32), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if w := visit(other.Guard(inside), "/", in); w.Code != http.StatusSeeOther {
		t.Error("another server's session is good")
	}
	now = start.Add(12*time.Hour - time.Second)
	if w := visit(h, "/", in); w.Body.String() != "inside" {
		t.Error("the session ends too early")
	}
	now = start.Add(12 * time.Hour)
	if w := visit(h, "/", in); w.Code != http.StatusSeeOther {
		t.Error("the session does not end")
	}
	late := s.Code()
	now = now.Add(10 * time.Minute)
	if w := login(t, h, late, ""); w.Code != http.StatusForbidden {
		t.Error("a code is good after ten minutes")
	}
	first := s.Code()
	for range 40 {
		s.Code()
	}
	if w := login(t, h, first, ""); w.Code != http.StatusForbidden {
		t.Error("codes are kept without end")
	}
}

func TestSessionForged(t *testing.T) {
	now := start
	h := sessions(t, &now).Guard(inside)
	for _, v := range []string{"", "x", strings.Repeat("A", 54), "////////", strings.Repeat("x", 5000)} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.AddCookie(&http.Cookie{Name: "bootd_session", Value: v})
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusSeeOther {
			t.Errorf("cookie %q: status %d", v, w.Code)
		}
	}
	if _, err := web.NewSessions(make([]byte, 31), time.Now); err == nil {
		t.Error("a short key is taken")
	}
}

// A link can only lead to a page of this server.
func TestNext(t *testing.T) {
	now := start
	s := sessions(t, &now)
	h := s.Guard(inside)
	for next, want := range map[string]string{
		"/swarm": "/swarm", "": "/", "http://evil.example/": "/", "//evil.example/": "/", `/\evil.example`: "/", "javascript:alert(1)": "/", "///evil.example": "/", "/a?b=c#d": "/a?b=c",
	} {
		if got := login(t, h, s.Code(), next).Header().Get("Location"); got != want {
			t.Errorf("next %q: to %q, want %q", next, got, want)
		}
	}
}

// Local keeps browsers away that were led here by another site; programs may use
// any name for a socket.
func TestLocal(t *testing.T) {
	h := web.Local(inside)
	browser := []string{"User-Agent", "Mozilla/5.0"}
	for _, tt := range []struct {
		host, method string
		header       []string
		want         int
	}{
		{"localhost:8080", "GET", browser, 200},
		{"127.0.0.1:8080", "GET", browser, 200},
		{"[::1]:8080", "GET", browser, 200},
		{"evil.example:8080", "GET", browser, 421},
		{"evil.example", "GET", []string{"Sec-Fetch-Site", "none"}, 421},
		{"evil.example", "POST", []string{"Origin", "http://evil.example"}, 421},
		{"localhost:8080", "POST", []string{"Origin", "http://evil.example"}, 403},
		{"localhost:8080", "POST", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"localhost:8080", "POST", []string{"Sec-Fetch-Site", "same-origin"}, 200},
		{"bootd", "POST", nil, 200},
		{"", "GET", nil, 200},
	} {
		r := httptest.NewRequest(tt.method, "/", nil)
		r.Host = tt.host
		for i := 0; i < len(tt.header); i += 2 {
			r.Header.Set(tt.header[i], tt.header[i+1])
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != tt.want {
			t.Errorf("%s %s %s: status %d, want %d", tt.method, tt.host, tt.header, w.Code, tt.want)
		}
	}
}
