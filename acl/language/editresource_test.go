package language

import (
	"errors"
	"strings"
	"testing"
)

func TestAddResource(t *testing.T) {
	db := NewResource{Name: "db", To: "10.6.0.2:5432", Sources: []string{"group:ops"}}
	for _, test := range []struct {
		what, before string
		add          NewResource
		after        string
	}{
		{"an empty policy", "", db, "{\n\t\"resources\": {\"db\": {\"to\": \"10.6.0.2:5432\"}},\n\t\"grants\": [{\"src\": [\"group:ops\"], \"dst\": [\"db\"]}],\n}\n"},
		{"comments stay", "{\n  // people\n  \"groups\": {\"group:ops\": [\"alice\"]}, // here\n  \"resources\": {\n    \"wiki\": {\"to\": \"http://localhost:3000\"}, // the wiki\n  },\n  \"grants\": [\n    {\"src\": [\"*\"], \"dst\": [\"wiki\"]}, // all\n  ],\n}\n", db,
			"{\n  // people\n  \"groups\": {\"group:ops\": [\"alice\"]}, // here\n  \"resources\": {\n    \"wiki\": {\"to\": \"http://localhost:3000\"}, // the wiki\n    \"db\": {\"to\": \"10.6.0.2:5432\"},\n  },\n  \"grants\": [\n    {\"src\": [\"*\"], \"dst\": [\"wiki\"]}, // all\n    {\"src\": [\"group:ops\"], \"dst\": [\"db\"]},\n  ],\n}\n"},
		{"everything", "{}\n", NewResource{Name: "web", To: "nas.lan", Ports: []string{"tcp:1-2"}, Title: "a \"b\" <c>", Note: "é", Proxy: true, Gateway: true, Sources: []string{"alice", "bob"}, MFA: "15m"},
			"{\"resources\": {\"web\": {\"to\": \"nas.lan\", \"ports\": [\"tcp:1-2\"], \"title\": \"a \\\"b\\\" <c>\", \"note\": \"é\", \"proxy\": \"v2\", \"from\": \"gateway\"}}, \"grants\": [{\"src\": [\"alice\", \"bob\"], \"dst\": [\"web\"], \"mfa\": \"15m\"}]}\n"},
	} {
		if test.what != "an empty policy" {
			test.before = strings.ReplaceAll(test.before, "group:ops\": [\"alice\"]", "group:ops\": [\"alice\"]")
		} else {
			test.add.Sources = []string{"alice"}
			test.after = strings.Replace(test.after, "group:ops", "alice", 1)
		}
		got, err := AddResource([]byte(test.before), test.add)
		if err != nil || string(got) != test.after {
			t.Errorf("%s:\n%s\n%v\nwant\n%s", test.what, got, err, test.after)
		}
	}
	if _, err := AddResource([]byte(`{"resources": {"db": {"to": "10.1.2.3:4"}}}`), db); !errors.Is(err, ErrResource) {
		t.Errorf("one that is there: %v", err)
	}
	for _, bad := range []NewResource{{Name: "d b", To: "10.6.0.2:1"}, {Name: "db", To: "10.6.0.2"}, {Name: "db", To: "10.6.0.2:1", Sources: []string{"group:none"}}, {Name: "app", To: "10.6.0.2:1"}} {
		if got, err := AddResource(nil, bad); err == nil {
			t.Errorf("%+v gives %s", bad, got)
		}
	}
}

func TestRemoveResource(t *testing.T) {
	const before = "{\n\t\"resources\": {\n\t\t\"db\": {\"to\": \"10.6.0.2:5432\"}, // the database\n\t\t\"wiki\": {\"to\": \"http://localhost:3000\"},\n\t},\n\t\"grants\": [\n\t\t{\"src\": [\"alice\"], \"dst\": [\"db\"]}, // hers\n\t\t{\"src\": [\"bob\"], \"dst\": [\"wiki\", \"db\"]},\n\t],\n}\n"
	const after = "{\n\t\"resources\": {\n\t\t\"wiki\": {\"to\": \"http://localhost:3000\"},\n\t},\n\t\"grants\": [\n\t\t{\"src\": [\"bob\"], \"dst\": [\"wiki\"]},\n\t],\n}\n"
	if got, err := RemoveResource([]byte(before), "db"); err != nil || string(got) != after {
		t.Errorf("%s\n%v\nwant\n%s", got, err, after)
	}
	if _, err := RemoveResource([]byte(before), "wikki"); !errors.Is(err, ErrNoResource) || !strings.Contains(err.Error(), "did you mean") {
		t.Errorf("one that is not there: %v", err)
	}
	// What was added and taken out leaves the text as it was.
	for _, text := range []string{before, strings.ReplaceAll(before, "\n", "\r\n")} {
		more, err := AddResource([]byte(text), NewResource{Name: "x", To: "10.1.2.3:4", Sources: []string{"alice"}})
		if err != nil {
			t.Fatal(err)
		}
		back, err := RemoveResource(more, "x")
		if err != nil || string(back) != text {
			t.Errorf("there and back:\n%s\n%v", back, err)
		}
	}
}
