// Package arch holds no code: its test is the architecture of bootd, written
// down as the imports that are allowed. A new arrow between two packages is a
// new line there, to be seen and argued about in review.
package arch
