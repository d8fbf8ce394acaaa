//go:build race

package dio

const raceEnabled = true
