package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
)

// refusal is what vpnd refused with: its sentence, and the data that it was made of.
type refusal struct {
	message string
	code    string
	params  map[string]string
}

func (r *refusal) Error() string { return r.message }

// refusalOf reads the code and the parameters beside a status's sentence.
func refusalOf(s *status.Status) *refusal {
	r := &refusal{message: s.Message()}
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			r.code, r.params = info.GetReason(), info.GetMetadata()
		}
	}
	return r
}

// failJSON reports err beside the result as one line of JSON; code and params are there if
// vpnd refused.
func (a *app) failJSON(err error) int {
	var line struct {
		Error struct {
			Code    string            `json:"code,omitempty"`
			Params  map[string]string `json:"params,omitempty"`
			Message string            `json:"message"`
		} `json:"error"`
	}
	line.Error.Message = clean(strings.ReplaceAll(err.Error(), "\n", "; "))
	if r, ok := errors.AsType[*refusal](err); ok {
		line.Error.Code, line.Error.Params = r.code, r.params
	}
	b, encodeErr := json.Marshal(line)
	if encodeErr != nil {
		return a.fail(err)
	}
	fmt.Fprintf(a.err, "%s\n", b)
	return exitCode(err)
}
