package strategy

// An image or a sound within a prompt is base64 text: a megabyte of it is some
// hundred to a thousand tokens, not a quarter of a million. Samples tell how much of
// a prompt it is: words have a space, a quote or a byte beyond ASCII within sampleSize
// bytes.
const (
	sampleSize  = 80
	samples     = 32
	sampleAbove = 8 << 10 // smaller prompts hold no image worth the name
)

// textBytes estimates how many bytes of a prompt are text.
func textBytes(prompt []byte) float64 {
	n := len(prompt)
	if n <= sampleAbove {
		return float64(n)
	}
	text := 0
	for i := range samples {
		at := (n - sampleSize) / samples * i
		if !base64Text(prompt[at : at+sampleSize]) {
			text++
		}
	}
	return max(float64(n)*float64(text)/samples, 1)
}

func base64Text(b []byte) bool {
	for _, c := range b {
		if !base64Byte[c] {
			return false
		}
	}
	return true
}

// base64Byte are the letters of both alphabets, and the backslash with which some
// encoders escape the slash.
var base64Byte = func() (is [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=-_\\") {
		is[c] = true
	}
	return is
}()
