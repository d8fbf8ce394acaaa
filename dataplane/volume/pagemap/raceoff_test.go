//go:build !race

package pagemap

const underRace = false
