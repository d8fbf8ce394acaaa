package erasure

import "github.com/klauspost/reedsolomon"

// Arithmetic in GF(2^8) with the polynomial 0x11d, for matrices of a few rows: once per pattern of
// lost shards, never per byte.

func mul(a, b byte) byte {
	var p byte
	for b != 0 {
		if b&1 != 0 {
			p ^= a
		}
		carry := a & 0x80
		a <<= 1
		if carry != 0 {
			a ^= 0x1d
		}
		b >>= 1
	}
	return p
}

func inverse(a byte) byte { return reedsolomon.Inv(a) }

// invert returns the inverse of the square matrix a, which it destroys; false if there is none.
func invert(a [][]byte) ([][]byte, bool) {
	n := len(a)
	inv := make([][]byte, n)
	for i := range inv {
		inv[i] = make([]byte, n)
		inv[i][i] = 1
	}
	for col := range n {
		pivot := col
		for pivot < n && a[pivot][col] == 0 {
			pivot++
		}
		if pivot == n {
			return nil, false
		}
		a[col], a[pivot] = a[pivot], a[col]
		inv[col], inv[pivot] = inv[pivot], inv[col]
		scale(a[col], inv[col], inverse(a[col][col]))
		for row := range n {
			if row != col {
				subtract(a[row], a[col], inv[row], inv[col], a[row][col])
			}
		}
	}
	return inv, true
}

func scale(a, b []byte, f byte) {
	for i := range a {
		a[i], b[i] = mul(a[i], f), mul(b[i], f)
	}
}

// subtract takes f times row y from row x, in both matrices.
func subtract(xa, ya, xi, yi []byte, f byte) {
	if f == 0 {
		return
	}
	for i := range xa {
		xa[i] ^= mul(ya[i], f)
		xi[i] ^= mul(yi[i], f)
	}
}

// mulRow is the product of a row and a matrix.
func mulRow(row []byte, m [][]byte) []byte {
	out := make([]byte, len(m[0]))
	for i, f := range row {
		for j, v := range m[i] {
			out[j] ^= mul(f, v)
		}
	}
	return out
}
