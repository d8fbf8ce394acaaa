//go:build !race

package pracc

const raceEnabled = false
