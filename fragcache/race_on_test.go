//go:build race

package fragcache

const raceEnabled = true
