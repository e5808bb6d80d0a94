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
	"sync"
	"testing"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode/decoder"
)

// most is how many bytes version 40 at level M has room for: ISO/IEC 18004, table 7.
const most = 2331

// plain is the text of n bytes that needs most room.
func plain(n int) string { return strings.Repeat("a", n) }

// A code of every length there is is read back by another program's decoder: the encoder
// chooses version, segments and padding anew for each. With -short they are fewer.
func TestQREveryLength(t *testing.T) {
	every := 1
	if testing.Short() {
		every = 16
	}
	texts := mixed()
	var wg sync.WaitGroup
	for worker := range 2 {
		wg.Go(func() {
			for n := 1 + worker*every; n <= most; n += 2 * every {
				s := texts[:n]
				if n%16 == 1 {
					s = plain(n)
				}
				rows, err := qrModules(s)
				if err != nil {
					t.Errorf("%d bytes: %v", n, err)
					continue
				}
				if got, err := decode(rows); err != nil || got != s {
					t.Errorf("%d bytes: %q is read of %q: %v", n, got, s, err)
				}
			}
		})
	}
	wg.Wait()
	if _, err := qrModules(plain(most)); err != nil {
		t.Errorf("%d bytes: %v", most, err)
	}
	if _, err := qrModules(plain(most + 1)); err == nil {
		t.Errorf("%d bytes fit", most+1)
	}
}

// decode reads modules without a picture of them.
func decode(rows [][]bool) (string, error) {
	const quiet = 4 // modules of margin, as the symbol has them
	size := len(rows) - 2*quiet
	bits, err := gozxing.NewBitMatrix(size, size)
	if err != nil {
		return "", err
	}
	for y := range size {
		for x := range size {
			if rows[y+quiet][x+quiet] {
				bits.Set(x, y)
			}
		}
	}
	got, err := decoder.NewDecoder().Decode(bits, nil)
	if err != nil {
		return "", err
	}
	return got.GetText(), nil
}

// mixed is a text with runs of digits and of capitals, which are shorter in a segment of
// their own.
func mixed() string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/=.,:# -"
	r := rand.New(rand.NewPCG(1, 1))
	b := make([]byte, most)
	for i := range b {
		switch (i / 40) % 3 {
		case 0:
			b[i] = letters[r.IntN(len(letters))]
		case 1:
			b[i] = byte('0' + r.IntN(10))
		default:
			b[i] = byte('A' + r.IntN(26))
		}
	}
	return string(b)
}

// Some are read back from pictures by a program that nobody here wrote.
func TestQRPicturesAreRead(t *testing.T) {
	tools(t, "zbarimg")
	texts := mixed()
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
	for n := 1; n <= most; n += 97 {
		// Spaces at the ends are not told from the reader's own.
		for _, s := range []string{"x" + texts[:n] + "y", plain(n)} {
			if len(s) > most {
				continue
			}
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
