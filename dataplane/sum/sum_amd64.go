package sum

import "github.com/klauspost/cpuid/v2"

// vectors says whether rounds can be called: it needs VPMULLQ and VPROLQ on 256 bits. With AVX2 alone the
// multiplication takes three others and as many shuffles, and is no faster than what it would replace.
var vectors = cpuid.CPU.Supports(cpuid.AVX512F, cpuid.AVX512DQ, cpuid.AVX512VL)

// rounds takes size bytes at each of from, a multiple of 32 and not 0, into the chains of acc.
//
//go:noescape
func rounds(acc *[lanes][4]uint64, from *[lanes]*byte, size int)
