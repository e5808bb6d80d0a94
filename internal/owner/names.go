package owner

import (
	"errors"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"strings"
)

// table is the fields of each line of a file like passwd(5). One that is not there has none.
func table(path string) (rows [][]string, err error) {
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for line := range strings.Lines(string(b)) {
		rows = append(rows, strings.Split(strings.TrimSuffix(line, "\n"), ":"))
	}
	return rows, nil
}

// lookupID is the name of the user uid in a file like passwd(5), empty if it is not there.
func lookupID(passwd string, uid int) string {
	users, _ := table(passwd) // none: nothing is known of uid
	for _, f := range users {
		if len(f) >= 4 && f[2] == strconv.Itoa(uid) {
			return f[0]
		}
	}
	return ""
}

// lookupGroup is the number of a group, -1 if there is none of this name.
func lookupGroup(name string) int {
	g, err := user.LookupGroup(name)
	if err != nil {
		return -1
	}
	gid, err := strconv.Atoi(g.Gid)
	if err != nil {
		return -1
	}
	return gid
}

func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return "uid " + strconv.Itoa(uid)
}

func groupName(gid int) string {
	if g, err := user.LookupGroupId(strconv.Itoa(gid)); err == nil {
		return g.Name
	}
	return "gid " + strconv.Itoa(gid)
}
