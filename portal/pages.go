package portal

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"net/http"
	"time"

	"vpnd/internal/words"
)

//go:embed templates
var templates embed.FS

// The pages. Each is layout.html with a body of its own.
var (
	homePage    = loadPage("home")
	enrollPage  = loadPage("enroll", "size", "api", "code", "ended", "enrolling")
	sessionPage = loadPage("session", "size", "api", "code")
	errorPage   = loadPage("error")
)

// pageTemplates is a page in every language: the templates have the places, the catalogue the texts.
type pageTemplates struct {
	name      string
	byCode    map[string]*template.Template // by the language's code
	forScript []string                      // the catalogue's sections that its scripts use
}

func loadPage(name string, forScript ...string) *pageTemplates {
	p := &pageTemplates{name, map[string]*template.Template{}, forScript}
	for _, l := range words.All() {
		t := template.New("layout.html").Funcs(template.FuncMap{
			"asset": assets.url,
			"iso":   func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
			// time is an instant, in words until the script writes it for where its reader is.
			"time": func(t time.Time) template.HTML {
				return template.HTML(fmt.Sprintf("<time datetime=\"%s\">%s</time>", t.UTC().Format(time.RFC3339), template.HTMLEscapeString(l.Time(t))))
			},
			"say": l.HTML,
			// markup puts elements of a template where a text has a parameter.
			"markup": func(s string) template.HTML { return template.HTML(s) },
			// element does so for a value, which is escaped.
			"element": element,
		})
		p.byCode[l.Code] = template.Must(t.ParseFS(templates, "templates/layout.html", "templates/"+name+".html"))
	}
	return p
}

// element is <tag class="…">value</tag>.
func element(tag, class string, value any) template.HTML {
	return template.HTML(fmt.Sprintf("<%s class=\"%s\">%s</%[1]s>", tag, class, template.HTMLEscapeString(fmt.Sprint(value))))
}

// layoutView is what layout.html needs around a page's own view.
type layoutView struct {
	*words.Language
	Others []words.Other
	Words  *words.Scripted // nil: the page has no script that says anything
	View   any
}

// writePage renders in the language of whoever asked, into memory first, so that a failing
// template is not half an answer. here is the page's path, for the links to other languages.
func writePage(w http.ResponseWriter, r *http.Request, status int, p *pageTemplates, here string, view any) error {
	l := words.Choose(r)
	layout := layoutView{Language: l, Others: l.Others(here, r.URL.Query()), View: view}
	if p.forScript != nil {
		s := l.ForScripts(p.forScript...)
		layout.Words = &s
	}
	var b bytes.Buffer
	if err := p.byCode[l.Code].Execute(&b, layout); err != nil {
		return fmt.Errorf("rendering %s: %w", p.name, err)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Language", l.Code)
	w.WriteHeader(status)
	_, err := b.WriteTo(w)
	return err
}
