//go:build !amd64

package sum

func setVectors(bool) bool { return false }
