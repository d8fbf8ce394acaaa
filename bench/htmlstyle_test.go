package bench

import (
	"math"
	"regexp"
	"strconv"
	"testing"
)

// blind is what eyes make of linear red, green and blue: all, and those that lack the first, second or third cone,
// after Machado, Oliveira and Fernandes (2009).
var blind = map[string][3][3]float64{
	"all":  {{1, 0, 0}, {0, 1, 0}, {0, 0, 1}},
	"prot": {{0.152286, 1.052583, -0.204868}, {0.114503, 0.786281, 0.099216}, {-0.003882, -0.048116, 1.051998}},
	"deut": {{0.367322, 0.860646, -0.227968}, {0.280085, 0.672501, 0.047413}, {-0.011820, 0.042940, 0.968881}},
	"trit": {{1.255528, -0.076749, -0.178779}, {-0.078411, 0.930809, 0.147602}, {0.004733, 0.691367, 0.303900}},
}

func times(m [3][3]float64, v [3]float64) (out [3]float64) {
	for i := range m {
		out[i] = m[i][0]*v[0] + m[i][1]*v[1] + m[i][2]*v[2]
	}
	return out
}

// oklab is where a colour, as six hexadecimal digits, lies for eyes in a space in which distance is difference.
func oklab(colour string, eyes [3][3]float64) [3]float64 {
	var v [3]float64
	for i := range v {
		n, _ := strconv.ParseUint(colour[2*i:2*i+2], 16, 8)
		v[i] = math.Pow((float64(n)/255+0.055)/1.055, 2.4)
		if n <= 10 {
			v[i] = float64(n) / 255 / 12.92
		}
	}
	v = times(eyes, v)
	for i := range v {
		v[i] = min(1, max(0, v[i]))
	}
	v = times([3][3]float64{{0.4122214708, 0.5363325363, 0.0514459929}, {0.2119034982, 0.6806995451, 0.1073969566},
		{0.0883024619, 0.2817188376, 0.6299787005}}, v)
	for i := range v {
		v[i] = math.Cbrt(v[i])
	}
	return times([3][3]float64{{0.2104542553, 0.7936177850, -0.0040720468}, {1.9779984951, -2.4285922050, 0.4505937099},
		{0.0259040371, 0.7827717662, -0.8086757660}}, v)
}

// The series keep apart for all eyes, in light and in dark.
func TestColoursKeepApart(t *testing.T) {
	found := regexp.MustCompile(`--s[0-7]:#([0-9a-f]{6})`).FindAllStringSubmatch(pageStyle, -1)
	if len(found) != 16 {
		t.Fatalf("%d colours", len(found))
	}
	for i, a := range found {
		for _, b := range found[i/8*8 : i] {
			for name, eyes := range blind {
				p, q := oklab(a[1], eyes), oklab(b[1], eyes)
				if d := math.Hypot(math.Hypot(p[0]-q[0], p[1]-q[1]), p[2]-q[2]); d < 0.1 {
					t.Errorf("%s: %s and %s are %.3f apart", name, a[0], b[0], d)
				}
			}
		}
	}
}
