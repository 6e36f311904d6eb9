package fleet

import (
	"encoding/json"
	"time"
)

// A Task is a verb that somebody asked for, as clients see it. How it is
// carried out, undone and taken up again is internal/task's business.
type Task struct {
	ID        TaskID          `json:"id"`
	Operation Operation       `json:"operation"`
	Entity    Ref             `json:"entity"` // known from the beginning, of clusters too
	State     TaskState       `json:"state"`
	Steps     []Step          `json:"steps,omitempty"`
	Queued    time.Time       `json:"queued"`
	Started   time.Time       `json:"started,omitzero"`
	Ended     time.Time       `json:"ended,omitzero"`
	Result    json.RawMessage `json:"result,omitempty"`  // Photon's resourceProperties
	Project   ProjectID       `json:"project,omitempty"` // whose people may see it; empty: see Tenant
	Tenant    TenantID        `json:"tenant,omitempty"`  // empty: everyone
}

// A Step is a part of a task.
type Step struct {
	Sequence  int               `json:"sequence"` // from 0
	Operation Operation         `json:"operation"`
	State     TaskState         `json:"state"`
	Errors    []Error           `json:"errors,omitempty"`
	Warnings  []Error           `json:"warnings,omitempty"`
	Queued    time.Time         `json:"queued"`
	Started   time.Time         `json:"started,omitzero"`
	Ended     time.Time         `json:"ended,omitzero"`
	Options   map[string]string `json:"options,omitempty"`
}

// A TaskState is how far a task or a step is.
type TaskState string

// The states of tasks and steps.
const (
	TaskQueued    TaskState = "QUEUED"
	TaskStarted   TaskState = "STARTED"
	TaskError     TaskState = "ERROR"
	TaskCompleted TaskState = "COMPLETED"
)

var taskEdges = edges[TaskState]{
	TaskQueued:    {TaskStarted, TaskError, TaskCompleted},
	TaskStarted:   {TaskError, TaskCompleted},
	TaskError:     {},
	TaskCompleted: {},
}

// CanBecome reports whether a task or a step may go from one state to another.
func (s TaskState) CanBecome(to TaskState) bool { return taskEdges.has(s, to) }

// Ended reports whether nothing follows.
func (s TaskState) Ended() bool { return s == TaskError || s == TaskCompleted }

// Cause is the first error of a step that failed; nil if none did. Clients show
// it as the error of the task.
func (t Task) Cause() *Error {
	for _, s := range t.Steps {
		if s.State == TaskError && len(s.Errors) > 0 {
			return &s.Errors[0]
		}
	}
	return nil
}
