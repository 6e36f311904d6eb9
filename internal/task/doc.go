// Package task carries out long work so that a kill at any moment loses nothing
// and repeats nothing that is done.
//
// A [Plan] is an operation as a list of steps. [Runner.Add] writes a task into
// a transaction of the caller, so that the task exists exactly when that which
// it was asked for (a record, a charge, a line of the audit) does. [Runner.Run]
// carries tasks out: one step after the other, each noted when it begins and when
// it has ended. A step that fails for good ends the task: it and those before it
// are undone, the last first, and only then is the task in ERROR.
//
// After a kill the unfinished step is done again, and an undo that was not noted
// is too: both must therefore find what they did before. [fleet.DeriveID] gives a
// step names that are the same each time.
//
// Tasks of the same entity are carried out one after the other, in the order they
// were asked for; those of different entities side by side, up to a limit.
//
// At most one Runner may run on a store at a time. Its methods may be called from
// any goroutine, whether it runs or not.
package task
