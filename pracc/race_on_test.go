//go:build race

package pracc

const raceEnabled = true
