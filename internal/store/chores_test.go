package store

import "testing"

func TestChores(t *testing.T) {
	const m = 1 << 20
	for _, tt := range []struct {
		name string
		st   state
		want chore
	}{
		{"new", state{quota: 2048 * m, starting: true}, chore{keep: history}},
		{"healthy", state{size: 500 * m, used: 400 * m, quota: 2048 * m}, chore{keep: history}},
		{"mostly empty, machines wait", state{size: 500 * m, used: 10 * m, quota: 2048 * m}, chore{keep: history}},
		{"mostly empty, at a start", state{size: 500 * m, used: 10 * m, quota: 2048 * m, starting: true}, chore{keep: history, shrink: true}},
		{"small", state{size: 50 * m, used: m, quota: 2048 * m, starting: true}, chore{keep: history}},
		{"large and mostly empty", state{size: 1500 * m, used: 100 * m, quota: 2048 * m}, chore{keep: 100, shrink: true}},
		{"large and needed", state{size: 1500 * m, used: 1400 * m, quota: 2048 * m}, chore{keep: 100, warn: true}},
		{"full", state{size: 2048 * m, used: 100 * m, quota: 2048 * m, alarm: true}, chore{shrink: true, resume: true}},
		{"full of what is needed", state{size: 2048 * m, used: 2000 * m, quota: 2048 * m, alarm: true}, chore{shrink: true, resume: true, warn: true}},
	} {
		if got := tt.st.chores(); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}
