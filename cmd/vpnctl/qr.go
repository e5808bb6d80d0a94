package main

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"vpnd/peers/conf"
)

// drawQR draws text as a QR code. Where the terminal is too narrow it draws nothing: a
// code whose lines are broken cannot be scanned. Then it returns how many columns are
// missing.
func (u *ui) drawQR(text string) (missing int, err error) {
	code, err := conf.QRTerminal(text)
	if err != nil {
		return 0, fmt.Errorf("draw the QR code: %w", err)
	}
	if u.columns > 0 {
		if code, missing = fitQR(code, u.columns); missing > 0 {
			return missing, nil
		}
	}
	u.write(strings.TrimRight(code, "\n") + "\n")
	return 0, nil
}

// The colours that conf.QRTerminal sets and takes back in every line.
const (
	qrOn  = "\x1b[97;40m"
	qrOff = "\x1b[0m"
)

// fitQR makes a code fit into so many columns by taking half of the light margin away:
// of the four modules that ISO/IEC 18004 wants at each side, phones need two.
func fitQR(code string, columns int) (fitted string, missing int) {
	const cut = 2 // modules, which are columns, at each side
	lines := strings.Split(strings.TrimRight(code, "\n"), "\n")
	width := 0
	for i, l := range lines {
		lines[i] = strings.TrimSuffix(strings.TrimPrefix(l, qrOn), qrOff)
		width = max(width, utf8.RuneCountInString(lines[i]))
	}
	switch {
	case width <= columns:
		return code, 0
	case width-2*cut > columns:
		return "", width - 2*cut - columns
	}
	for i, l := range lines {
		r := []rune(l)
		lines[i] = qrOn + string(r[min(cut, len(r)):max(len(r)-cut, 0)]) + qrOff
	}
	return strings.Join(lines, "\n") + "\n", 0
}
