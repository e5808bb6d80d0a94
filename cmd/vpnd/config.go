package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/alecthomas/kong"

	"vpnd/internal/owner"
)

// maxConfig bounds the file of --config: 1 MiB.
const maxConfig = 1 << 20

// configFile is the file of --config: the values of flags by their names. A flag outweighs
// the environment, and that the file.
type configFile struct {
	path   string // empty: there is none
	values map[string]string
}

// notInFile are flags that make no sense in a file.
var notInFile = []string{"config", "check-config", "help", "version"}

// settable says whether a flag may stand in the file of --config.
func settable(f *kong.Flag) bool { return !f.Hidden && !slices.Contains(notInFile, f.Name) }

// readConfig reads the file that --config or VPND_CONFIG names, if any, for the flags of k.
func readConfig(k *kong.Kong, args []string) (c configFile, err error) {
	c.path = os.Getenv("VPND_CONFIG")
	for i, a := range args {
		if v, ok := strings.CutPrefix(a, "--config="); ok {
			c.path = v
		} else if a == "--config" && i+1 < len(args) {
			c.path = args[i+1]
		}
	}
	if c.path == "" {
		return c, nil
	}
	text, err := configOwner(args).Read(c.path, "--config", owner.Access{Read: true}, maxConfig)
	if err != nil {
		return c, remedy(err, "--config")
	}
	found := map[string]any{}
	if _, err := toml.Decode(string(text), &found); err != nil {
		return c, remedy(fmt.Errorf("reading --config %s: %w", c.path, err), "--config")
	}
	var known []string
	for _, f := range k.Model.Flags {
		if settable(f) {
			known = append(known, f.Name)
		}
	}
	c.values = make(map[string]string, len(found))
	var errs []error
	for name, v := range found {
		if !slices.Contains(known, name) {
			errs = append(errs, fmt.Errorf("%q is no flag of vpnd%s", name, didYouMean(name, known)))
			continue
		}
		if c.values[name], err = flagText(v); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	if len(errs) > 0 {
		slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
		return c, fmt.Errorf("--config %s: %s; see vpnd --help", c.path, strings.ReplaceAll(errors.Join(errs...).Error(), "\n", "; "))
	}
	return c, nil
}

// configOwner is whose files the file of --config may be, beside root's: this process's, or,
// where root only checks (--check-config), those of the user that the package makes, since its
// service is going to read the file.
func configOwner(args []string) owner.Who {
	w := owner.Self()
	if w.UID != 0 || !slices.Contains(args, "--check-config") {
		return w
	}
	if u, err := user.Lookup("vpnd"); err == nil {
		w.UID, _ = strconv.Atoi(u.Uid) // both are numbers: passwd(5)
		w.GID, _ = strconv.Atoi(u.Gid)
	}
	return w
}

// flagText is a value of the file as one would type it.
func flagText(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case int64, bool:
		return fmt.Sprint(v), nil
	case []any: // network = ["10.77.0.0/16", "fd00::/64"]
		texts := make([]string, len(v))
		for i := range v {
			s, ok := v[i].(string)
			if !ok {
				return "", errors.New("a list holds texts in quotes")
			}
			texts[i] = s
		}
		return strings.Join(texts, ","), nil
	}
	return "", fmt.Errorf("a value is a text, a number, true or false, or a list of texts, not a %s", map[bool]string{true: "table", false: "time or fraction"}[isTable(v)])
}

func isTable(v any) bool {
	switch v.(type) {
	case map[string]any, []map[string]any:
		return true
	}
	return false
}

// resolve gives kong the file's values, for flags that neither the arguments nor the
// environment have; kong itself would let the file outweigh the environment.
func (c configFile) resolve(_ *kong.Context, _ *kong.Path, f *kong.Flag) (any, error) {
	if inEnvironment(f) != "" {
		return nil, nil
	}
	if v, ok := c.values[f.Name]; ok {
		return v, nil
	}
	return nil, nil
}

// inEnvironment is the variable that gives f its value, empty if none does.
func inEnvironment(f *kong.Flag) string {
	for _, name := range f.Envs {
		if _, set := os.LookupEnv(name); set {
			return name
		}
	}
	return ""
}

// origins says for each flag that was given by whom, as a person would look for it.
func (c configFile) origins(parsed *kong.Context) map[string]string {
	out := map[string]string{}
	for _, f := range parsed.Model.Flags {
		if name := inEnvironment(f); name != "" {
			out[f.Name] = "the variable " + name
		} else if _, ok := c.values[f.Name]; ok {
			out[f.Name] = "its line in " + c.path
		}
	}
	for _, p := range parsed.Path {
		if p.Flag != nil && !p.Resolved {
			out[p.Flag.Name] = "the flag --" + p.Flag.Name
		}
	}
	return out
}

// didYouMean is the name among known that is most like name, if one is near.
func didYouMean(name string, known []string) string {
	best, least := "", len(name)/2+1
	for _, k := range known {
		if d := distance(strings.ToLower(strings.ReplaceAll(name, "_", "-")), k); d < least {
			best, least = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance is the Levenshtein distance of two names.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
