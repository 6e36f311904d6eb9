// Package timeline keeps the record of what machines do: for each machine what
// it has told of itself, and its latest boots step by step.
//
// Whoever sees something happen calls [Recorder.Record], which notes it in memory
// and never waits; [Recorder.Commit] returns when it, and everything before it,
// is on stable storage. After a restart everything is as it was, so machines in
// the middle of a boot go on with it.
//
// What belongs to which boot is decided by boot.Timeline; this package only keeps
// it. A Recorder is safe for concurrent use. Made-up machines fill neither its
// memory nor the disk: strangers and repeats are written seldom and a few at a
// time, and those seen longest ago are forgotten.
package timeline
