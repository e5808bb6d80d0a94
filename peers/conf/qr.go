package conf

import (
	"fmt"
	"strings"

	"github.com/skip2/go-qrcode"
)

// qrModules gives a text's QR code at level M with its quiet zone; true is dark.
func qrModules(text string) ([][]bool, error) {
	code, err := qrcode.New(text, qrcode.Medium)
	if err != nil {
		// The text may be a secret: the length alone is told.
		return nil, fmt.Errorf("drawing a QR code of %d bytes: at most 2331 fit", len(text))
	}
	return code.Bitmap(), nil
}

// QRTerminal draws text as a QR code (go-qrcode, level M): half-block lines for a
// terminal, two rows of modules in each. Every line sets white on black and resets it,
// as many scanners want dark modules on light ground whatever the terminal's colours.
func QRTerminal(text string) (string, error) {
	rows, err := qrModules(text)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for y := 0; y < len(rows); y += 2 {
		b.WriteString("\x1b[97;40m")
		for x := range rows[y] {
			upper := !rows[y][x] // a light module is drawn, a dark one left black
			lower := y+1 == len(rows) || !rows[y+1][x]
			switch {
			case upper && lower:
				b.WriteRune('█')
			case upper:
				b.WriteRune('▀')
			case lower:
				b.WriteRune('▄')
			default:
				b.WriteByte(' ')
			}
		}
		b.WriteString("\x1b[0m\n")
	}
	return b.String(), nil
}

// QRSVG draws text as an SVG document for a page: dark modules on a white ground of its
// own, so that it can be scanned on a dark page too.
func QRSVG(text string) (string, error) {
	rows, err := qrModules(text)
	if err != nil {
		return "", err
	}
	var path strings.Builder
	for y, row := range rows {
		for x := 0; x < len(row); x++ {
			if !row[x] {
				continue
			}
			n := 1
			for x+n < len(row) && row[x+n] {
				n++
			}
			fmt.Fprintf(&path, "M%d %dh%dv1h-%dz", x, y, n, n)
			x += n
		}
	}
	n := len(rows)
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="QR code" shape-rendering="crispEdges">`+
		`<rect width="%d" height="%d" fill="#fff"/><path fill="#000" d="%s"/></svg>`, n, n, n, n, path.String()), nil
}
