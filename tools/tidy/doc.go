// Package tidy keeps the house rules, as tests: who may import whom, what every package must say of
// itself, where unsafe and the kernel may be touched, and how long things may get. A failure is a sentence
// that says what to do. The rules are in law.go; change them on purpose, not to make a build pass.
package tidy
