// Package config reads what people write: bootd.yaml, profiles/*.yaml and
// machines/*.yaml in one directory, and turns them into checked values that
// cannot be wrong.
//
// It is strict: a key that means nothing is a mistake, with a suggestion. It
// reports every mistake of every file at once, each with file, line and column,
// since who edits a machine room's configuration wants one round trip.
//
// [Load] reads a directory once; [Watch] reads it again whenever something in
// it changes. Nothing here is kept between calls. The package does not know
// what is in the asset store and does not translate Butane: that an image can be
// had and that a profile makes an Ignition config is checked by others.
package config
