package ipxe_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestFromNoNetwork: who asks from an address in none of the networks was routed
// here and is no machine that boots; it gets no ticket, whatever MAC it names.
func TestFromNoNetwork(t *testing.T) {
	w := newWorld(t)
	w.network = nil
	r := httptest.NewRequest(http.MethodGet, "/ipxe?mac="+node1.String(), nil)
	r.RemoteAddr = "203.0.113.9:1234"
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 80}))
	rec := httptest.NewRecorder()
	w.handler.ServeHTTP(rec, r)
	if body := rec.Body.String(); strings.Contains(body, "/ignition/") || !strings.Contains(body, "its address is in none of bootd's networks") {
		t.Errorf("%d\n%s", rec.Code, body)
	}
	if len(w.renders) > 0 {
		t.Error("a config was rendered")
	}
}
