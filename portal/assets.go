package portal

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed static templates
var files embed.FS

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
	err := fs.WalkDir(files, "static", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		contentType, ok := contentTypes[path.Ext(name)]
		if !ok {
			return nil // READMEs
		}
		b, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(sum, "%s %d\n%s", name, len(b), b)
		t.files[strings.TrimPrefix(name, "static/")] = asset{contentType, b}
		return nil
	})
	if err != nil {
		panic(err)
	}
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
		http.Error(w, "no such file", http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", a.contentType)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(a.body))
}

// The pages. Each is layout.html with a body of its own.
var (
	homePage    = loadPage("home")
	enrollPage  = loadPage("enroll")
	sessionPage = loadPage("session")
	errorPage   = loadPage("error")
)

func loadPage(name string) *template.Template {
	t := template.New("layout.html").Funcs(template.FuncMap{
		"asset": assets.url,
		"iso":   func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"clock": func(t time.Time) string { return t.UTC().Format("2 January, 15:04 UTC") },
	})
	return template.Must(t.ParseFS(files, "templates/layout.html", "templates/"+name+".html"))
}
