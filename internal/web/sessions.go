package web

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	// sessionLife is how long a browser stays logged in.
	sessionLife = 12 * time.Hour
	// codeLife is how long a code can be used.
	codeLife = 10 * time.Minute
	// maxCodes is how many codes are good at a time; the oldest goes first.
	maxCodes    = 32
	sessionName = "bootd_session"
)

// Sessions let in who shows a code that an operator was given, once, and
// remember that in a cookie. Sessions outlive a restart as long as the key does;
// codes do not. Methods may be called from any goroutine.
type Sessions struct {
	key   []byte
	now   func() time.Time
	login *template.Template

	mu    sync.Mutex
	codes []code // oldest first
}

type code struct {
	text string
	ends time.Time
}

// NewSessions makes sessions under a key of at least 32 random bytes.
func NewSessions(key []byte, now func() time.Time) (*Sessions, error) {
	if len(key) < sha256.Size {
		return nil, fmt.Errorf("cannot keep sessions: the key has %d bytes, needs %d or more", len(key), sha256.Size)
	}
	stamp, err := stampOf(files, "static")
	if err != nil {
		return nil, err
	}
	t, err := template.New("login.html").Funcs(functions(stamp)).ParseFS(files, "pages/login.html")
	if err != nil {
		return nil, fmt.Errorf("cannot read the dashboard's page login: %w", err)
	}
	return &Sessions{key: bytes.Clone(key), now: now, login: t}, nil
}

// Code makes a code that lets somebody in once, within ten minutes.
func (s *Sessions) Code() string {
	c := code{rand.Text(), s.now().Add(codeLife)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.codes) >= maxCodes {
		s.codes = s.codes[1:]
	}
	s.codes = append(s.codes, c)
	return c.text
}

// use reports whether a code is good, and makes it useless.
func (s *Sessions) use(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, c := range s.codes {
		if hmac.Equal([]byte(c.text), []byte(text)) {
			s.codes = append(s.codes[:i:i], s.codes[i+1:]...)
			return s.now().Before(c.ends)
		}
	}
	return false
}

// cookie is what a browser shows until a time.
func (s *Sessions) cookie(until time.Time) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(until.Unix()))
	return base64.RawURLEncoding.EncodeToString(append(b, s.tag(b)...))
}

func (s *Sessions) tag(b []byte) []byte {
	h := hmac.New(sha256.New, s.key)
	h.Write([]byte("bootd dashboard session\n"))
	h.Write(b)
	return h.Sum(nil)
}

// known reports whether a request comes from who has logged in.
func (s *Sessions) known(r *http.Request) bool {
	// A browser shows what is of other ports of this host as well.
	for _, c := range r.CookiesNamed(sessionName) {
		b, err := base64.RawURLEncoding.DecodeString(c.Value)
		if err != nil || len(b) != 8+sha256.Size || !hmac.Equal(b[8:], s.tag(b[:8])) {
			continue
		}
		if s.now().Unix() < int64(binary.BigEndian.Uint64(b)) {
			return true
		}
	}
	return false
}

// Guard lets only those to h who have logged in, and others to /login.
func (s *Sessions) Guard(h http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) {
		s.show(w, http.StatusOK, r.URL.Query().Get("code"), "", r.URL.Query().Get("next"))
	})
	mux.HandleFunc("POST /login", s.enter)
	mux.Handle("GET /static/", h)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		switch {
		case s.known(r):
			h.ServeHTTP(w, r)
		case r.Method == http.MethodGet && r.URL.Path != "/live":
			http.Redirect(w, r, "/login?next="+url.QueryEscape(r.URL.RequestURI()), http.StatusSeeOther)
		default:
			http.Error(w, "you are not logged in to bootd's dashboard: `bootd dashboard` gives a link that lets you in", http.StatusForbidden)
		}
	})
	return secure(http.NewCrossOriginProtection().Handler(mux))
}

// enter lets in who shows a good code.
func (s *Sessions) enter(w http.ResponseWriter, r *http.Request) {
	next := local(r.PostFormValue("next"))
	if !s.use(strings.ToUpper(strings.TrimSpace(r.PostFormValue("code")))) {
		s.show(w, http.StatusForbidden, "", "That code is not good, or not any more: each lets in one browser, within ten minutes.", next)
		return
	}
	http.SetCookie(w, &http.Cookie{Name: sessionName, Value: s.cookie(s.now().Add(sessionLife)), Path: "/", MaxAge: int(sessionLife.Seconds()),
		HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: r.TLS != nil})
	http.Redirect(w, r, next, http.StatusSeeOther)
}

// local is a path on this server, whatever somebody wrote into a link.
func local(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || !strings.HasPrefix(u.Path, "/") || strings.HasPrefix(u.Path, "//") || strings.Contains(next, `\`) {
		return "/"
	}
	return u.RequestURI()
}

func (s *Sessions) show(w http.ResponseWriter, status int, code, failed, next string) {
	var b bytes.Buffer
	if err := s.login.Execute(&b, map[string]string{"Code": code, "Failed": failed, "Next": local(next)}); err != nil {
		http.Error(w, "bootd cannot make this page", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Referrer-Policy", "no-referrer") // the link holds the code
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // a reader that is gone needs nothing
}
