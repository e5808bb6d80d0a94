// Package words makes text for people. Everything below the edges speaks in codes and
// parameters; here stand the sentences, in every language that the pages offer, with the
// ways in which each writes times, numbers and plurals.
//
// The catalogue is a set of files for each language, compiled in. A text that is missing or
// lacks a parameter is a fault of the build, which tests find: what is shown then is its id.
package words

import (
	"embed"
	"fmt"
	"html"
	"html/template"
	"path"
	"slices"
	"strings"
	"unicode"

	"github.com/BurntSushi/toml"
	"github.com/nicksnyder/go-i18n/v2/i18n"
	"golang.org/x/text/language"
	"golang.org/x/text/message"
)

//go:embed catalogue/*.toml
var catalogue embed.FS

// Language speaks one language. Its methods may be called at the same time.
type Language struct {
	Code      string // as in <html lang>: "en", "fr"
	localizer *i18n.Localizer
	number    *message.Printer
	texts     map[string]*i18n.Message // by id
}

// languages are those there are, English, which what is not offered falls back to, first.
var languages = load(language.English, language.French)

// load reads the catalogue; a fault in it is one of the build, which the first test finds.
func load(tags ...language.Tag) []*Language {
	var out []*Language
	bundle := i18n.NewBundle(tags[0])
	bundle.RegisterUnmarshalFunc("toml", toml.Unmarshal)
	names, err := catalogue.ReadDir("catalogue")
	if err != nil {
		panic(err)
	}
	for _, tag := range tags {
		l := &Language{
			Code: tag.String(), localizer: i18n.NewLocalizer(bundle, tag.String()),
			number: message.NewPrinter(tag), texts: map[string]*i18n.Message{},
		}
		for _, n := range names {
			if matched, _ := path.Match("*."+l.Code+".toml", n.Name()); !matched {
				continue
			}
			b, err := catalogue.ReadFile("catalogue/" + n.Name())
			if err != nil {
				panic(err)
			}
			file, err := bundle.ParseMessageFileBytes(b, n.Name())
			if err != nil {
				panic(fmt.Sprintf("%s: %v", n.Name(), err))
			}
			for _, m := range file.Messages {
				l.texts[m.ID] = m
			}
		}
		out = append(out, l)
	}
	return out
}

// English is what vpnctl, the log and everything else speaks that is for administrators.
func English() *Language { return languages[0] }

// For is the language of a code, English for one that is not offered.
func For(code string) *Language {
	if i := slices.IndexFunc(languages, func(l *Language) bool { return l.Code == code }); i >= 0 {
		return languages[i]
	}
	return English()
}

// All are the languages there are.
func All() []*Language { return slices.Clone(languages) }

// Name is the language's own name for itself.
func (l *Language) Name() string { return l.Text("language.name") }

// Text is the text with this id. Parameters are names and values in turn; of one called
// "count", which is a whole number, the plural form depends.
func (l *Language) Text(id string, params ...any) string {
	values := map[string]any{}
	for i := 0; i+1 < len(params); i += 2 {
		values[fmt.Sprint(params[i])] = params[i+1]
	}
	return l.say(id, values, false)
}

// HTML is the text as HTML: its own mark-up stays, parameters are escaped unless they are
// of type template.HTML.
func (l *Language) HTML(id string, params ...any) template.HTML {
	values := map[string]any{}
	for i := 0; i+1 < len(params); i += 2 {
		values[fmt.Sprint(params[i])] = params[i+1]
	}
	return template.HTML(l.say(id, values, true)) // the catalogue is ours
}

// Refusal makes a sentence of a refusal's code and parameters. A code that has none, which
// a newer gateway may send, gets a general one that names it.
func (l *Language) Refusal(code string, params map[string]string) string {
	if id := "refusal." + code; l.texts[id] != nil {
		return l.With(id, params)
	}
	return l.Text("refusal_unknown", "code", code)
}

// With is the text with this id and parameters that came as data.
func (l *Language) With(id string, params map[string]string) string {
	values := map[string]any{}
	for k, v := range params {
		values[k] = strings.Map(printable, v)
	}
	return l.say(id, values, false)
}

// printable keeps what would move a terminal's cursor out of a parameter, which may be
// anybody's; policies' problems have lines.
func printable(r rune) rune {
	if unicode.IsControl(r) && r != '\n' {
		return unicode.ReplacementChar
	}
	return r
}

// Has says whether a text stands in the catalogue.
func (l *Language) Has(id string) bool { return l.texts[id] != nil }

func (l *Language) say(id string, values map[string]any, markup bool) string {
	config := i18n.LocalizeConfig{
		MessageID:      id,
		TemplateParser: parser{},
		TemplateData:   &saying{l, values, markup},
	}
	if m := l.texts[id]; m != nil && m.One != "" {
		config.PluralCount = values["count"]
	}
	text, err := l.localizer.Localize(&config)
	if err != nil {
		if markup {
			return html.EscapeString(id)
		}
		return id
	}
	return text
}
