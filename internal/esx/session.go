package esx

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"reflect"
	"sync"
	"syscall"
	"time"

	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"bootd/internal/fleet"
)

// A session is how calls reach the host: few at once, each bounded in time,
// repeated where that is safe, and after another login where the session has
// ended.
type session struct {
	h     *Host
	inner soap.RoundTripper
	vim   *vim25.Client
}

// RoundTrip makes one call.
func (s *session) RoundTrip(ctx context.Context, req, res soap.HasFault) error {
	if _, waits := req.(*methods.WaitForUpdatesExBody); waits {
		return s.authenticated(ctx, req, res) // takes no slot: it is there all the time, once
	}
	done, err := s.h.calls.take(ctx)
	if err != nil {
		return err
	}
	defer done()
	pause := 100 * time.Millisecond
	for try := 0; ; try++ {
		err := s.bounded(ctx, req, res)
		if err == nil || try == 3 || ctx.Err() != nil || !again(req, err) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause/2 + rand.N(pause)):
			pause *= 2
			reset(res)
		}
	}
}

// again reports whether a call that failed may be made again at once: it has
// not reached the host, or changes nothing there.
func again(req soap.HasFault, err error) bool {
	if errors.Is(err, syscall.ECONNREFUSED) {
		return true
	}
	switch req.(type) {
	case *methods.RetrievePropertiesBody, *methods.RetrievePropertiesExBody, *methods.FindAllByUuidBody, *methods.FindByUuidBody:
		return lost(err)
	}
	return false
}

func (s *session) bounded(ctx context.Context, req, res soap.HasFault) error {
	ctx, cancel := context.WithTimeout(ctx, s.h.config.Timeout)
	defer cancel()
	return timedOut(ctx, s.authenticated(ctx, req, res))
}

// authenticated logs in again if the host does not know the session any more,
// which it says before it does anything.
func (s *session) authenticated(ctx context.Context, req, res soap.HasFault) error {
	was := s.h.login.Load()
	err := s.inner.RoundTrip(ctx, req, res)
	if !loggedOut(err, res) {
		return err
	}
	if err := s.h.relogin(ctx, s.vim, was); err != nil {
		return err
	}
	reset(res)
	return s.inner.RoundTrip(ctx, req, res)
}

// loggedOut reports whether an answer says that the session has ended. Reading
// properties does not fail then: each of them is missing for that reason.
func loggedOut(err error, res soap.HasFault) bool {
	if err != nil {
		return is[types.NotAuthenticated](err)
	}
	var objects []types.ObjectContent
	switch b := res.(type) {
	case *methods.RetrievePropertiesBody:
		if b.Res != nil {
			objects = b.Res.Returnval
		}
	case *methods.RetrievePropertiesExBody:
		if b.Res != nil && b.Res.Returnval != nil {
			objects = b.Res.Returnval.Objects
		}
	}
	for _, o := range objects {
		for _, m := range o.MissingSet {
			if _, out := m.Fault.Fault.(*types.NotAuthenticated); out {
				return true
			}
		}
	}
	return false
}

// reset empties an answer: decoding only adds to it, and the fault of the first
// try would stay.
func reset(res soap.HasFault) { reflect.ValueOf(res).Elem().SetZero() }

// jar keeps the cookies of one session.
type jar struct {
	mu sync.Mutex
	http.CookieJar
}

func (j *jar) SetCookies(u *url.URL, c []*http.Cookie) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.CookieJar.SetCookies(u, c)
}

func (j *jar) Cookies(u *url.URL) []*http.Cookie {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.CookieJar.Cookies(u)
}

// empty forgets the session. Without that, one whose login was not heard of
// would go on, and a host refuses to log in who is logged in.
func (j *jar) empty() error {
	fresh, err := cookiejar.New(nil)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.CookieJar = fresh
	return nil
}

// relogin logs in unless somebody else has since the login that was counted.
func (h *Host) relogin(ctx context.Context, vim *vim25.Client, was int64) error {
	done, err := h.turn.take(ctx)
	if err != nil {
		return err
	}
	defer done()
	if h.login.Load() != was {
		return nil
	}
	h.log.Info("logging in again", "why", "the session has ended")
	return h.logIn(ctx, vim)
}

// lockout is how long a password that was refused is not tried again: five wrong
// ones lock an account of ESXi's (Security.AccountLockFailures).
const lockout = time.Minute

// logIn begins a session. Who calls it has the turn.
func (h *Host) logIn(ctx context.Context, vim *vim25.Client) error {
	if since := time.Since(h.denied); since < lockout {
		return fail(fleet.BadCredentials, "register the host again with the right ones", "user name or password were wrong %s ago", since.Round(time.Second))
	}
	ctx, cancel := context.WithTimeout(ctx, h.config.Timeout)
	defer cancel()
	if err := h.cookies.empty(); err != nil {
		return err
	}
	_, err := methods.Login(ctx, h.client, &types.Login{This: *vim.ServiceContent.SessionManager, UserName: h.config.Username, Password: h.config.Password})
	if is[types.InvalidLogin](err) {
		h.denied = time.Now()
	}
	if err != nil {
		return timedOut(ctx, err)
	}
	h.login.Add(1)
	return nil
}

func (h *Host) logout(ctx context.Context, inv *inventory) {
	// What it answers does not matter: an idle session ends by itself.
	_, _ = methods.Logout(ctx, h.client, &types.Logout{This: *inv.vim.ServiceContent.SessionManager})
}

// run starts a task and waits for its end.
func (h *Host) run(ctx context.Context, inv *inventory, start func() (types.ManagedObjectReference, error)) (types.AnyType, error) {
	done, err := h.tasks.take(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	task, err := start()
	if err != nil {
		return nil, err
	}
	return h.await(ctx, inv, task)
}

// await asks for a task until it has ended. It asks instead of being told, so
// that nothing is lost with a session: a task outlives the one it began in. When
// ctx ends the task is cancelled, as far as it lets itself.
func (h *Host) await(ctx context.Context, inv *inventory, task types.ManagedObjectReference) (types.AnyType, error) {
	pause := 4 * time.Millisecond
	var silent time.Time
	for {
		var t mo.Task
		err := inv.get(ctx, task, []string{"info"}, &t)
		switch {
		case ctx.Err() != nil:
			h.cancel(inv, task)
			return nil, ctx.Err()
		case is[types.ManagedObjectNotFound](err):
			return nil, fail(fleet.Unreachable, "look what it has done, and try again", "it has restarted, or forgotten the task, before that ended")
		case err != nil && methodFault(err) != nil:
			return nil, err
		case err != nil:
			if silent.IsZero() {
				silent = time.Now()
			}
			if time.Since(silent) > h.config.Patience {
				return nil, err
			}
		default:
			silent = time.Time{}
			if t.Info.State == types.TaskInfoStateSuccess {
				return t.Info.Result, nil
			}
			if t.Info.State == types.TaskInfoStateError {
				if t.Info.Error == nil {
					return nil, errors.Join(io.ErrUnexpectedEOF, errors.New("the task failed without a reason"))
				}
				return nil, &taskError{t.Info.Error.Fault, t.Info.Error.LocalizedMessage}
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
			pause = min(pause*3/2, 500*time.Millisecond)
		}
	}
}

func (h *Host) cancel(inv *inventory, task types.ManagedObjectReference) {
	ctx, stop := context.WithTimeout(context.Background(), 5*time.Second)
	defer stop()
	_, _ = methods.CancelTask(ctx, inv.vim, &types.CancelTask{This: task}) // it may have ended, or not be cancelable
}
