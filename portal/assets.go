package portal

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"

	"vpnd/internal/words"
)

//go:embed static
var static embed.FS

// assetTree serves static files under a prefix that has the hash of all of them in it:
// they can be cached for ever, and modules import each other by relative names.
type assetTree struct {
	prefix string // "/assets/HASH/"
	files  map[string]asset
}

type asset struct {
	contentType string
	body        []byte
}

var contentTypes = map[string]string{
	".css": "text/css; charset=utf-8",
	".js":  "text/javascript; charset=utf-8",
	".svg": "image/svg+xml",
	".txt": "text/plain; charset=utf-8",
}

var assets = loadAssets()

// loadAssets reads what is embedded; a fault in it is one of the build, which the first
// test finds.
func loadAssets() *assetTree {
	t := &assetTree{files: map[string]asset{}}
	sum := sha256.New()
	add := func(name, contentType string, b []byte) {
		fmt.Fprintf(sum, "%s %d\n%s", name, len(b), b)
		t.files[name] = asset{contentType, b}
	}
	err := fs.WalkDir(static, "static", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		contentType, ok := contentTypes[path.Ext(name)]
		if !ok {
			return nil // READMEs
		}
		b, err := static.ReadFile(name)
		if err != nil {
			return err
		}
		add(strings.TrimPrefix(name, "static/"), contentType, b)
		return nil
	})
	if err != nil {
		panic(err)
	}
	add("words.js", contentTypes[".js"], words.Script)
	t.prefix = "/assets/" + base64.RawURLEncoding.EncodeToString(sum.Sum(nil)[:12]) + "/"
	return t
}

// url is for templates.
func (t *assetTree) url(name string) (string, error) {
	if _, ok := t.files[name]; !ok {
		return "", fmt.Errorf("no asset %q", name)
	}
	return t.prefix + name, nil
}

func (t *assetTree) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a, ok := t.files[strings.TrimPrefix(r.URL.Path, t.prefix)]
	if !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", a.contentType)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(a.body))
}
