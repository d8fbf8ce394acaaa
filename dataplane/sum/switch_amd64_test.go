package sum

func setVectors(on bool) (was bool) {
	was, vectors = vectors, on
	return was
}
