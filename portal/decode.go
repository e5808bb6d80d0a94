package portal

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
)

// maxBody is the most bytes of a request body. The largest real one, finish, has about 300.
const maxBody = 4 << 10

// decodeJSON reads a body that must be exactly one JSON object with known fields. The
// media type matters to security: a page of another origin cannot send
// application/json without asking first.
func decodeJSON(w http.ResponseWriter, r *http.Request, v any) error {
	t, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if charset := params["charset"]; err != nil || t != "application/json" || charset != "" && charset != "utf-8" && charset != "UTF-8" {
		return &problem{Status: http.StatusUnsupportedMediaType, Code: "json_only"}
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	err = d.Decode(v)
	if err == nil {
		_, err = d.Token()
		if err == nil {
			err = errors.New("more than one value")
		} else if err == io.EOF {
			return nil
		}
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return &problem{Status: http.StatusRequestEntityTooLarge, Code: "too_large", cause: err}
	}
	// The cause may quote what was sent, so it goes nowhere.
	return &problem{Status: http.StatusBadRequest, Code: "bad_request"}
}
