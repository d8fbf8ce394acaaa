//go:build race

package pagemap

// underRace makes the long tests shorter: the detector costs a factor of ten.
const underRace = true
