//go:build !race

package fragcache

const raceEnabled = false
