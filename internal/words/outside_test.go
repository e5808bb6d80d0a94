package words

import (
	"go/ast"
	goparser "go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// These tests look for text outside the catalogue where people would see it: in the pages'
// templates, in their scripts, and in the code of the edges and of what lies below them.

const root = "../.."

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func glob(t *testing.T, patterns ...string) []string {
	t.Helper()
	var out []string
	for _, p := range patterns {
		names, err := filepath.Glob(filepath.Join(root, p))
		if err != nil {
			t.Fatal(err)
		}
		if len(names) == 0 {
			t.Fatalf("there is no %s", p)
		}
		for _, n := range names {
			if !strings.HasSuffix(n, "_test.go") {
				out = append(out, n)
			}
		}
	}
	return out
}

var (
	templates = []string{"portal/templates/*.html", "protected-app/static/*.html"}
	scripts   = []string{"portal/static/*.js", "protected-app/static/*.js", "internal/words/*.js"}
	edges     = []string{"portal/*.go", "protected-app/*.go"}

	letters = regexp.MustCompile(`\pL+`)
	action  = regexp.MustCompile(`\{\{(?s:.*?)\}\}`)
)

// names are what is called alike in every language.
var names = []string{"vpnd", "Aegis", "FreeOTP", "FAS", "Android", "iPhone", "iPad", "Mac", "App", "Store", "Google", "Play", "F", "Droid",
	"Windows", "Linux", "wireguard", "com", "install", "wg", "quick", "up", "icmp"}

// textOutside finds words in the texts and in the spoken attributes of a page's source.
func textOutside(source string) []string {
	// What stands in actions is code, but for the mark-up in its strings.
	literal := regexp.MustCompile("\\(markup (?:`([^`]*)`|\"([^\"]*)\")\\)")
	var found []string
	for _, m := range literal.FindAllStringSubmatch(source, -1) {
		found = append(found, textOutside(m[1]+m[2])...)
	}
	z := html.NewTokenizer(strings.NewReader(action.ReplaceAllString(source, "")))
	skip, raw := false, false // the tokenizer gives what stands in <noscript> as one text
	look := func(text string) {
		for _, w := range letters.FindAllString(text, -1) {
			if !slices.Contains(names, w) {
				found = append(found, w)
			}
		}
	}
	for {
		switch z.Next() {
		case html.ErrorToken:
			return found
		case html.TextToken:
			switch {
			case raw:
				found = append(found, textOutside(string(z.Text()))...)
			case !skip:
				look(string(z.Text()))
			}
		case html.StartTagToken, html.SelfClosingTagToken:
			tok := z.Token()
			skip, raw = tok.Data == "script" || tok.Data == "style", tok.Data == "noscript"
			for _, a := range tok.Attr {
				if slices.Contains([]string{"alt", "title", "aria-label", "placeholder"}, a.Key) || a.Key == "value" && tok.Data == "input" {
					look(a.Val)
				}
			}
		case html.EndTagToken:
			skip, raw = false, false
		}
	}
}

func TestNoTextInTemplates(t *testing.T) {
	for _, name := range glob(t, templates...) {
		for _, w := range textOutside(read(t, name)) {
			t.Errorf("%s says %q by itself", name, w)
		}
	}
	for source, want := range map[string]int{
		`<p>Hello</p>`: 1, `<p>{{say "x"}}</p>`: 0, `<img alt="A picture">`: 2, `<p class="lead">{{.X}} {{if .Y}}there{{end}}</p>`: 1,
		"{{say \"x\" \"y\" (markup `<b>bold</b>`)}}": 1, `<script>let x</script>`: 0, `<noscript><p class="lead">No</p></noscript>`: 1,
	} {
		if got := textOutside(source); len(got) != want {
			t.Errorf("in %s were found %q", source, got)
		}
	}
}

// literals are a script's strings and the fixed parts of its templates.
func literals(source string) []string {
	var out []string
	for i := 0; i < len(source); i++ {
		switch c := source[i]; {
		case strings.HasPrefix(source[i:], "//"):
			end := strings.IndexByte(source[i:], '\n')
			if end < 0 {
				return out
			}
			i += end
		case strings.HasPrefix(source[i:], "/*"):
			i += strings.Index(source[i:], "*/")
		case c == '/' && strings.ContainsAny(lastCode(source[:i]), "(,=:[!&|?{};"):
			for i++; i < len(source) && source[i] != '/'; i++ { // a regular expression
				if source[i] == '\\' {
					i++
				}
			}
		case c == '\'' || c == '"' || c == '`':
			start := i + 1
			for i++; i < len(source) && source[i] != c; i++ {
				if source[i] == '\\' {
					i++
				} else if c == '`' && strings.HasPrefix(source[i:], "${") {
					out = append(out, source[start:i])
					depth := 0
					for ; i < len(source); i++ {
						if source[i] == '{' {
							depth++
						} else if source[i] == '}' {
							if depth--; depth == 0 {
								break
							}
						}
					}
					start = i + 1
				}
			}
			out = append(out, source[start:min(i, len(source))])
		}
	}
	return out
}

// lastCode is the last byte before that is no space.
func lastCode(before string) string {
	before = strings.TrimRight(before, " \n\t")
	return before[max(0, len(before)-1):]
}

var (
	// sentence is a text for people: words with spaces between, or one that begins large or
	// ends with a full stop.
	sentence = regexp.MustCompile(`(^|[^\pL.#\[\])=>-])\pL+[,;:.]? \pL|^\p{Lu}\p{Ll}+[.…!?]?$|^\p{Lu}\pL+ $`)
	// technical are words of protocols and of style sheets.
	technical = []string{"Content-Type", "Retry-After", "Link", "Date", "more count"}
)

func TestNoTextInScripts(t *testing.T) {
	for _, name := range glob(t, scripts...) {
		for _, l := range literals(read(t, name)) {
			if sentence.MatchString(l) && !slices.Contains(technical, l) {
				t.Errorf("%s says %q by itself", name, l)
			}
		}
	}
	for _, bad := range []string{"Copied.", "Sign in", "A code has six digits.", " is set up.", "Delete ", "Too large: at most ", "Supprimé"} {
		if !sentence.MatchString(bad) {
			t.Errorf("%q passes for no text", bad)
		}
	}
}

// TestNoTextInEdges: a sentence in the edges' code is for the log, a panic or an operator at
// start, all of which are English; else it belongs into the catalogue.
func TestNoTextInEdges(t *testing.T) {
	allowed := []string{"TLS handshake error", "TCP port %d of the interface %s"} // the log's
	said := regexp.MustCompile(`^(Errorf|New|Logf|logf|Printf|Fprintf|panic|Print|Description|Log|Debug|Info|Warn|Error)$`)
	for _, name := range glob(t, edges...) {
		if filepath.Base(name) == "man.go" { // the man page, for the operator
			continue
		}
		f, err := goparser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				fn := ""
				switch e := n.Fun.(type) {
				case *ast.Ident:
					fn = e.Name
				case *ast.SelectorExpr:
					fn = e.Sel.Name
				}
				return !said.MatchString(fn)
			case *ast.Field:
				return n.Tag == nil
			case *ast.BasicLit:
				if n.Kind != token.STRING {
					return true
				}
				if s, err := strconv.Unquote(n.Value); err == nil && regexp.MustCompile(`^\p{Lu}\p{Ll}* \pL+|\pL+ \pL+ \pL+`).MatchString(s) && !slices.Contains(allowed, s) {
					t.Errorf("%s says %q by itself", name, s)
				}
			}
			return true
		})
	}
}

// TestNoTextUnused: what nobody says is not in the catalogue, and what is said is there.
func TestNoTextUnused(t *testing.T) {
	mentioned := map[string]string{}
	asID := regexp.MustCompile("[\"'`]([a-z_]+\\.[a-z_0-9]+)[\"'`]")
	for _, name := range glob(t, append(append(append([]string{"internal/words/*.go"}, templates...), scripts...), edges...)...) {
		for _, m := range asID.FindAllStringSubmatch(read(t, name), -1) {
			mentioned[m[1]] = name
		}
	}
	sections := map[string]bool{}
	for text := range English().texts {
		section, _, _ := strings.Cut(text, ".")
		sections[section] = true
	}
	for m, where := range mentioned {
		if section, _, _ := strings.Cut(m, "."); sections[section] && !English().Has(m) && !strings.HasSuffix(m, "_") && filepath.Ext(m) != ".js" && filepath.Ext(m) != ".css" {
			t.Errorf("%s says %s, which is not in the catalogue", where, m)
		}
	}
	// Of these the ids are put together.
	composed := regexp.MustCompile(`^(time\.|size\.|refusal|explain\.|app_refusal\.|ended\.|enrolling\.(waiting|connected|active)_)`)
	for _, text := range slices.Sorted(maps.Keys(English().texts)) {
		if mentioned[text] == "" && !composed.MatchString(text) {
			t.Errorf("nobody says %s", text)
		}
	}
}

// TestEdgesRefuseInWords: each code that an edge refuses with by itself has a text.
func TestEdgesRefuseInWords(t *testing.T) {
	for section, where := range map[string]struct {
		pattern string
		code    *regexp.Regexp
	}{
		"refusal":     {"portal/*.go", regexp.MustCompile(`Code: +"([a-z_]+)"`)},
		"app_refusal": {"protected-app/*.go", regexp.MustCompile(`refusal\{http\.Status\w+, "([a-z_]+)"`)},
	} {
		found := 0
		for _, name := range glob(t, where.pattern) {
			for _, m := range where.code.FindAllStringSubmatch(read(t, name), -1) {
				found++
				if !English().Has(section + "." + m[1]) {
					t.Errorf("%s refuses with %q, which has no words", name, m[1])
				}
			}
		}
		if found < 8 {
			t.Errorf("only %d codes were found in %s", found, where.pattern)
		}
	}
}
