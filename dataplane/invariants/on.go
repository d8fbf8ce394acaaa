//go:build invariants

package invariants

// Enabled is true in builds with the tag invariants: every test run of `make test` has it.
const Enabled = true
