package psk13

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"testing"
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return b
}

// check compares with a published value.
func check(t *testing.T, what string, got []byte, want string) {
	t.Helper()
	if !bytes.Equal(got, unhex(want)) {
		t.Errorf("%s is %x, want %s", what, got, want)
	}
}

// The traces of RFC 8448: section 3, whose key is zero, and section 4, whose key is of a session; only the
// label of the binder differs from that of keys from outside.
func TestScheduleRFC8448(t *testing.T) {
	h := sha256.New
	early := earlySecret(h, make([]byte, 32))
	check(t, "early", early, "33ad0a1c607ec03b09e6cd9893680ce210adf300aa1f2660e1b22e10f170f92a")
	check(t, "derived", derived(h, early), "6f2615a108c702c5678f54fc9dbab69716c076189c48250cebeac3576c3611ba")
	hs := handshakeSecret(h, early, unhex("8bd4054fb55b9d63fdfbacf9f04b9f0d35e6d63f537563efd46272900f89492d"))
	check(t, "handshake", hs, "1dc826e93606aa6fdc0aadc12f741b01046aa6b99f691ed221a9f0ca043fbeac")
	sum := unhex("860c06edc07858ee8e78f0e7428c58edd6b43f2ca3e6e95f02ed063cf0e1cad8")
	check(t, "client handshake traffic", deriveSecret(h, hs, "c hs traffic", sum),
		"b3eddb126e067f35a780b3abf45e2d8f3b1a950738f52e9600746a0e27a55a21")
	server := deriveSecret(h, hs, "s hs traffic", sum)
	check(t, "server handshake traffic", server, "b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38")
	check(t, "key", expandLabel(h, server, "key", nil, 16), "3fce516009c21727d0f2e4e86ee403bc")
	check(t, "IV", expandLabel(h, server, "iv", nil, 12), "5d313eb2671276ee13000b30")
	check(t, "finished key", expandLabel(h, server, "finished", nil, 32),
		"008d3b66f816ea559f96b537e885c31fc068bf492c652f01f288a1d8cdc19fc8")
	master := masterSecret(h, hs)
	check(t, "master", master, "18df06843d13a08bf2a449844c5f8a478001bc4d4c627984d5a41da8d0402919")
	sum = unhex("9608102a0f1ccc6db6250b7b7e417b1a000eaada3daae4777a7686c9ff83df13")
	check(t, "client traffic", deriveSecret(h, master, "c ap traffic", sum),
		"9e40646ce79a7f9dc05af8889bce6552875afa0b06df0087f792ebb7c17504a5")
	check(t, "server traffic", deriveSecret(h, master, "s ap traffic", sum),
		"a11af9f05531f856ad47116b45a950328204b4f44bfb6b3a4b4f1f3fcb631643")

	early = earlySecret(h, unhex("4ecd0eb6ec3b4d87f5d6028f922ca4c5851a277fd41311c9e62d2c9492e1c4f3"))
	check(t, "early of a session", early, "9b2188e9b2fc6d64d71dc329900e20bb41915000f678aa839cbb797cb7d8332c")
	key := deriveSecret(h, early, "res binder", h().Sum(nil))
	check(t, "binder", verifyData(h, key, unhex("63224b2e4573f2d3454ca84b9d009a04f6be9e05711a8396473aefa01e924a14")),
		"3add4fb2d8fdf822a0ca3cf7678ef5e88dae990141c5924d57bb6fa31b9e5f9d")
}

// A case of NIST's validation programme (ACVP, TLS-v1.3-KDF-RFC8446) in the mode PSK with DHE.
func TestScheduleACVP(t *testing.T) {
	h := sha256.New
	transcript := h()
	transcript.Write(unhex("e9137679e582ba7c1db41cf725f86c6d09c8c05f297bad9a65b552eaf524fde4"))
	transcript.Write(unhex("23eccfd030790748c8f8d8a656fd98d717f1b62af3712f97211d2070b499f98a"))
	early := earlySecret(h, unhex("56288b726c73829f7a3e47b103837c8139acf552e7530c7a710b35ed41191698"))
	hs := handshakeSecret(h, early, unhex("effe9ec26aa29fd750dfa6a10b944d74071595b27ee88887d5e11c84590b5cc3"))
	sum := transcript.Sum(nil)
	check(t, "client handshake traffic", deriveSecret(h, hs, "c hs traffic", sum),
		"b32306c3ce9932c460a1fe6c0f060593974842036b96fa45049b7352e71c2ad2")
	check(t, "server handshake traffic", deriveSecret(h, hs, "s hs traffic", sum),
		"22787f8ca269d34bc549ac8ba19f2040938a3aa370d7cc9d60f720882b88d01b")
	transcript.Write(unhex("c750eda6696cd101b142bd79e00e6ac8c5f2c0abc78dd64f4d991326659e9299"))
	sum = transcript.Sum(nil)
	master := masterSecret(h, hs)
	check(t, "client traffic", deriveSecret(h, master, "c ap traffic", sum),
		"47d7ea08397b5871154b0fe85584bcc30a87c69e84d69b56007c5b21f76493ba")
	check(t, "server traffic", deriveSecret(h, master, "s ap traffic", sum),
		"efbdb0c873c0480da57307083839a8984be25b9a8545e4fca029940fe2800565")
}
