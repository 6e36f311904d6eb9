// Package wire holds the JSON of Photon Controller's API, as its command line and
// its Go SDK send and read it: version 1.1.1, which is what they spoke from 0.8
// on with other words added. It is shared by the server (package photon) and the
// client (package client).
//
// Moments are milliseconds since 1970; lists are never null.
package wire

import "encoding/json"

// A List is a page of entities.
type List[T any] struct {
	Items []T `json:"items"`
	// Paths with a query on the same server; null at the end and at the beginning.
	NextPageLink     *string `json:"nextPageLink"`
	PreviousPageLink *string `json:"previousPageLink"`
}

// Items is the body of set_security_groups and similar verbs.
type Items struct {
	Items []string `json:"items"`
}

// An Error is the body of an answer that is an error, and what a step of a task
// failed with.
type Error struct {
	Code    string            `json:"code"`
	Message string            `json:"message"`
	Data    map[string]string `json:"data"`
	// Status is the HTTP status that came with it; not part of the body.
	Status int `json:"-"`
}

// Error is the message and the code, which scripts match.
func (e *Error) Error() string { return e.Message + " (" + e.Code + ")" }

// An Entity names what a task is about.
type Entity struct {
	ID   string `json:"id"`
	Kind string `json:"kind"`
}

// A Task tells of a change. State is QUEUED, STARTED, ERROR or COMPLETED.
type Task struct {
	ID                 string          `json:"id"`
	Kind               string          `json:"kind"` // task
	SelfLink           string          `json:"selfLink"`
	Entity             Entity          `json:"entity"`
	State              string          `json:"state"`
	Operation          string          `json:"operation"`
	Steps              []Step          `json:"steps"`
	QueuedTime         int64           `json:"queuedTime"`
	StartedTime        int64           `json:"startedTime,omitempty"`
	EndTime            int64           `json:"endTime,omitempty"`
	ResourceProperties json.RawMessage `json:"resourceProperties,omitempty"`
}

// A Step is a part of a task.
type Step struct {
	Sequence    int               `json:"sequence"`
	State       string            `json:"state"`
	Operation   string            `json:"operation"`
	Errors      []Error           `json:"errors"`
	Warnings    []Error           `json:"warnings"`
	QueuedTime  int64             `json:"queuedTime"`
	StartedTime int64             `json:"startedTime,omitempty"`
	EndTime     int64             `json:"endTime,omitempty"`
	Options     map[string]string `json:"options,omitempty"`
}

// Auth is the answer of GET /auth: whether a token is needed.
type Auth struct {
	Enabled  bool   `json:"enabled"`
	Endpoint string `json:"endpoint,omitempty"`
	Port     int    `json:"port,omitempty"`
}

// Info is the answer of GET /info.
type Info struct {
	BaseVersion   string `json:"baseVersion"`
	FullVersion   string `json:"fullVersion"`
	GitCommitHash string `json:"gitCommitHash"`
	NetworkType   string `json:"networkType"` // PHYSICAL
}

// A Status is the answer of GET /status.
type Status struct {
	Status     string      `json:"status"` // READY, UNREACHABLE, ERROR, PARTIAL_ERROR
	Components []Component `json:"components"`
}

// A Component is a part of the server.
type Component struct {
	Component string     `json:"component"`
	Status    string     `json:"status"`
	Message   string     `json:"message,omitempty"`
	Instances []Instance `json:"instances"`
}

// An Instance is where a component runs.
type Instance struct {
	Address string `json:"address"`
	Status  string `json:"status"`
	Message string `json:"message,omitempty"`
}

// An Audited is a line of the audit log, which Photon Controller has not.
type Audited struct {
	Time      int64  `json:"time"`
	By        string `json:"by"`
	Role      string `json:"role"`
	Operation string `json:"operation"`
	Entity    Entity `json:"entity"`
	Name      string `json:"name,omitempty"`
}

// An Endpoint is where the API is served, for the tools of others. Photon
// Controller has nothing like it.
type Endpoint struct {
	Address     string      `json:"address"` // to listen at: 127.0.0.1:9443; empty: only on the operator's socket
	Auth        string      `json:"auth"`    // none or tokens
	Certificate Certificate `json:"certificate"`
}

// A Certificate is what the server shows, with the fingerprints that clients ask
// people to compare.
type Certificate struct {
	SHA256   string   `json:"sha256"`
	SHA1     string   `json:"sha1"`
	MD5      string   `json:"md5"`
	NotAfter int64    `json:"notAfter"`
	Names    []string `json:"names"`
	PEM      string   `json:"pem"`
}
