package conf

import (
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A code of every length that a config can have, and of many up to the last that fits, is
// read back by another reader: the encoder chooses version, segments and padding anew for
// each. With -short they are fewer.
func TestQREveryLengthIsRead(t *testing.T) {
	tools(t, "zbarimg")
	const most = 2331 // bytes in version 40 at level M: ISO/IEC 18004, table 7
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/=.,:# -"
	r := rand.New(rand.NewPCG(1, 1))
	text := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			// Runs of digits and of capitals, which are shorter in a segment of their own.
			switch (i / 40) % 3 {
			case 0:
				b[i] = letters[r.IntN(len(letters))]
			case 1:
				b[i] = byte('0' + r.IntN(10))
			default:
				b[i] = byte('A' + r.IntN(26))
			}
		}
		b[0], b[n-1] = 'x', 'y' // spaces at the ends are not told from the reader's own
		return string(b)
	}
	plain := func(n int) string { return strings.Repeat("a", n) }
	if _, err := qrModules(plain(most)); err != nil {
		t.Errorf("%d bytes: %v", most, err)
	}
	if _, err := qrModules(plain(most + 1)); err == nil {
		t.Errorf("%d bytes fit", most+1)
	}
	dir := t.TempDir()
	var files, want []string
	flush := func() {
		if len(files) == 0 {
			return
		}
		got := strings.Split(strings.TrimSuffix(run(t, "", "zbarimg", append([]string{"--quiet", "--nodbus", "--raw", "-Sdisable", "-Sqrcode.enable"}, files...)...), "\n"), "\n")
		if !slices.Equal(got, want) {
			for i, w := range want {
				if i >= len(got) || got[i] != w {
					t.Fatalf("%d bytes: %q is read of %q", len(w), at(got, i), w)
				}
			}
		}
		for _, f := range files {
			os.Remove(f)
		}
		files, want = nil, nil
	}
	for n := 1; n <= most; n++ {
		if every := step(n); n%every != 0 && n != most {
			continue
		}
		for _, s := range []string{text(n), plain(n)} {
			rows, err := qrModules(s)
			if err != nil {
				t.Fatalf("%d bytes: %v", n, err)
			}
			name := filepath.Join(dir, fmt.Sprintf("%d-%d.png", n, len(files)))
			drawModules(t, name, rows)
			files, want = append(files, name), append(want, s)
		}
		if len(files) >= 8 {
			flush()
		}
	}
	flush()
}

// step is how far the next length is that is read.
func step(n int) int {
	const config = 600 // bytes, with many routes
	switch {
	case testing.Short() && n <= config:
		return 16
	case testing.Short():
		return 173
	case n <= config:
		return 1
	default:
		return 13
	}
}

func at(list []string, i int) string {
	if i < len(list) {
		return list[i]
	}
	return ""
}

// drawModules writes modules as a picture, three pixels each.
func drawModules(t *testing.T, name string, rows [][]bool) {
	t.Helper()
	const each = 3
	img := image.NewGray(image.Rect(0, 0, len(rows)*each, len(rows)*each))
	for y := range len(rows) * each {
		for x := range len(rows) * each {
			if !rows[y/each][x/each] {
				img.SetGray(x, y, color.Gray{Y: 255})
			}
		}
	}
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := png.Encode(f, img); err != nil {
		t.Fatal(err)
	}
}
