package conf

import (
	"encoding/xml"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestQRTerminalDecodes(t *testing.T) {
	tools(t, "zbarimg")
	for _, text := range []string{realText(), "https://vpn.example.com:8443/enroll#0123456789abcdefghij", "x"} {
		drawn, err := QRTerminal(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := zbar(t, terminal(t, drawn)); got != text {
			t.Errorf("zbarimg reads %q, want %q", got, text)
		}
	}
}

func TestQRSVGDecodes(t *testing.T) {
	tools(t, "zbarimg")
	for _, text := range []string{realText(), "https://vpn.example.com:8443/enroll#0123456789abcdefghij"} {
		svg, err := QRSVG(text)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(svg, "style") || strings.Contains(svg, "script") {
			t.Error("a strict Content-Security-Policy would refuse it")
		}
		if got := zbar(t, rasterized(t, svg)); got != text {
			t.Errorf("zbarimg reads %q, want %q", got, text)
		}
	}
}

func TestQRIsTooSmallForLongTexts(t *testing.T) {
	long := strings.Repeat("é", 1200)
	for _, f := range []func(string) (string, error){QRTerminal, QRSVG} {
		if _, err := f(long); err == nil || strings.Contains(err.Error(), "é") {
			t.Errorf("a text of %d bytes: %v", len(long), err)
		}
	}
}

// zbar lets zbarimg read a picture.
func zbar(t *testing.T, img image.Image) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "qr.png")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := png.Encode(f, img); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(run(t, "", "zbarimg", "--quiet", "--raw", name), "\n")
}

const pixels = 4 // of a module

// terminal draws what a terminal shows, on its default ground, which may be either.
func terminal(t *testing.T, s string) image.Image {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(s, "\n"), "\n")
	width := 0
	set := regexp.MustCompile(`^\x1b\[97;40m([ ▀▄█]*)\x1b\[0m$`)
	for i, l := range lines {
		m := set.FindStringSubmatch(l)
		if m == nil {
			t.Fatalf("line %d is %q", i, l)
		}
		lines[i] = m[1]
		width = max(width, len([]rune(m[1])))
	}
	img := image.NewGray(image.Rect(0, 0, width*pixels, 2*len(lines)*pixels))
	for y, l := range lines {
		for x, r := range []rune(l) {
			if r == '▀' || r == '█' {
				fill(img, x, 2*y, 1, 1, color.White)
			}
			if r == '▄' || r == '█' {
				fill(img, x, 2*y+1, 1, 1, color.White)
			}
		}
	}
	return img
}

func fill(img draw.Image, x, y, w, h int, c color.Color) {
	draw.Draw(img, image.Rect(x*pixels, y*pixels, (x+w)*pixels, (y+h)*pixels), image.NewUniform(c), image.Point{}, draw.Src)
}

// rasterized draws the SVG that QRSVG writes: a white rectangle, and black runs.
func rasterized(t *testing.T, svg string) image.Image {
	t.Helper()
	var doc struct {
		ViewBox string `xml:"viewBox,attr"`
		Rect    struct {
			Width  int    `xml:"width,attr"`
			Height int    `xml:"height,attr"`
			Fill   string `xml:"fill,attr"`
		} `xml:"rect"`
		Path struct {
			D    string `xml:"d,attr"`
			Fill string `xml:"fill,attr"`
		} `xml:"path"`
	}
	if err := xml.Unmarshal([]byte(svg), &doc); err != nil {
		t.Fatal(err)
	}
	w, h := doc.Rect.Width, doc.Rect.Height
	if doc.ViewBox != fmt.Sprintf("0 0 %d %d", w, h) || doc.Rect.Fill != "#fff" || doc.Path.Fill != "#000" {
		t.Fatalf("the document is %.200s", svg)
	}
	img := image.NewGray(image.Rect(0, 0, w*pixels, h*pixels))
	fill(img, 0, 0, w, h, color.White)
	for run := range strings.SplitSeq(strings.TrimSuffix(doc.Path.D, "z"), "z") {
		var x, y, n, back int
		if _, err := fmt.Sscanf(run, "M%d %dh%dv1h-%d", &x, &y, &n, &back); err != nil || n != back {
			t.Fatalf("the run %q: %v", run, err)
		}
		fill(img, x, y, n, 1, color.Black)
	}
	return img
}
