package photon

import (
	"net/http"

	"bootd/internal/controller"
	"bootd/internal/fleet"
	"bootd/internal/photon/wire"
)

func (s *server) taskRoutes() routes {
	return routes{
		"/tasks":      {http.MethodGet: s.listTasks},
		"/tasks/{id}": {http.MethodGet: s.getTask},
		"/audit":      {http.MethodGet: s.audit},
	}
}

// taskOf is a task on the wire: the same, whoever asks for it and on what way.
func (c *call) taskOf(t fleet.Task) wire.Task {
	out := wire.Task{
		ID: string(t.ID), Kind: string(fleet.KindTask), SelfLink: c.link("tasks", string(t.ID)),
		Entity: wire.Entity{ID: t.Entity.ID, Kind: string(t.Entity.Kind)}, State: string(t.State), Operation: string(t.Operation),
		Steps: []wire.Step{}, QueuedTime: millis(t.Queued), StartedTime: millis(t.Started), EndTime: millis(t.Ended), ResourceProperties: t.Result,
	}
	for _, s := range t.Steps {
		out.Steps = append(out.Steps, wire.Step{
			Sequence: s.Sequence, State: string(s.State), Operation: string(s.Operation), Errors: errorsOf(s.Errors), Warnings: errorsOf(s.Warnings),
			QueuedTime: millis(s.Queued), StartedTime: millis(s.Started), EndTime: millis(s.Ended), Options: s.Options,
		})
	}
	return out
}

func errorsOf(list []fleet.Error) []wire.Error {
	out := []wire.Error{}
	for _, e := range list {
		out = append(out, errorOf(e))
	}
	return out
}

// made answers with the task of a verb; 201 is what nearly all of them have.
func (c *call) made(t fleet.Task, err error) (reply, error) {
	if err != nil {
		return reply{}, err
	}
	return reply{http.StatusCreated, c.taskOf(t)}, nil
}

// done is made with status 200, which a few verbs have.
func (c *call) done(t fleet.Task, err error) (reply, error) {
	r, err := c.made(t, err)
	if err == nil {
		r.status = http.StatusOK
	}
	return r, err
}

func (s *server) getTask(c *call) (reply, error) {
	t, err := s.Controller.Task(c.ctx(), c.by, fleet.TaskID(c.PathValue("id")))
	if err != nil {
		return reply{}, err
	}
	return ok(c.taskOf(t)), nil
}

// listTasks lists all tasks, or with entityId and entityKind those of an entity.
func (s *server) listTasks(c *call) (reply, error) {
	id, kind := c.query.Get("entityId"), c.query.Get("entityKind")
	if (id == "") != (kind == "") {
		return reply{}, fleet.Errorf(fleet.InvalidQueryParams, "Both entityId and entityKind params need to be specified.")
	}
	return s.tasksOf(c, controller.TaskFilter{Of: fleet.Ref{Kind: fleet.Kind(kind), ID: id}})
}

// tasksOf lists tasks, of those that the request's query wants.
func (s *server) tasksOf(c *call, f controller.TaskFilter) (reply, error) {
	f.State = fleet.TaskState(c.query.Get("state"))
	switch f.State {
	case "", fleet.TaskQueued, fleet.TaskStarted, fleet.TaskError, fleet.TaskCompleted:
	default:
		return reply{}, fleet.Errorf(fleet.InvalidQueryParams, "state %.40q is none of QUEUED, STARTED, ERROR, COMPLETED", string(f.State))
	}
	list, err := s.Controller.Tasks(c.ctx(), c.by, f)
	if list, err = some(c, list, err); err != nil {
		return reply{}, err
	}
	return paged(c, list, byTime, c.taskOf), nil
}

// entityTasks lists the tasks of the entity in the path, once look has found that
// it is there and may be seen.
func (s *server) entityTasks(kind fleet.Kind, look func(*call) error) handler {
	return func(c *call) (reply, error) {
		if err := look(c); err != nil {
			return reply{}, err
		}
		f := controller.TaskFilter{Of: fleet.Ref{Kind: kind, ID: c.PathValue("id")}}
		if kind == fleet.KindProject {
			f.Kind = fleet.Kind(c.query.Get("kind"))
		}
		return s.tasksOf(c, f)
	}
}

// audit lists the audit log from a moment on, which Photon Controller has not:
// since=MILLISECONDS.
func (s *server) audit(c *call) (reply, error) {
	since, err := moment(c.query.Get("since"))
	if err != nil {
		return reply{}, err
	}
	list, err := s.Controller.Audit(c.ctx(), c.by, since)
	if list, err = some(c, list, err); err != nil {
		return reply{}, err
	}
	return paged(c, list, auditKey, func(l controller.Audited) wire.Audited {
		return wire.Audited{Time: millis(l.Time), By: l.By, Role: string(l.Role), Operation: string(l.Operation),
			Entity: wire.Entity{ID: l.Entity.ID, Kind: string(l.Entity.Kind)}, Name: l.Name}
	}), nil
}
