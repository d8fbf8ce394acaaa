//go:build !invariants

package invariants

// Enabled is false in the shipped build: guarded checks compile to nothing.
const Enabled = false
