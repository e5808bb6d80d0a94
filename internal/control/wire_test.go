package control

import (
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"vpnd/peers"
)

// asks has every Ask there is: what could carry requests elsewhere must know them.
var asks = []Ask{
	SignIn{}, SignOut{}, EnrolBegin{}, FinishRequest{},
	AddUser{}, InviteUser{}, EnableUser{}, RemoveUser{}, UnlockUser{}, ResetTOTP{},
	AddDevice{}, EnableDevice{}, RemoveDevice{}, RotateDevice{}, EndSessions{},
	ApplyPolicy{}, ConfirmPolicy{}, RevertPolicy{}, SetSettings{}, ResetTime{},
	Expire{}, NoteDrift{},
}

// wire is a Decider that makes bytes of every request and answer on the way to another
// one. All tests of this package go through it.
type wire struct {
	t  testing.TB
	to Decider
}

type sentRequest struct {
	ID     peers.ID
	Base   uint64
	Actor  string
	Source netip.Addr
	Kind   string
	Ask    cbor.RawMessage
}

type sentAnswer struct {
	Answer  Answer
	Refusal *sentRefusal
}

type sentRefusal struct {
	Code       string
	Params     []peers.Param
	RetryAfter time.Duration
}

func (w wire) Decide(ctx context.Context, r Request) (Answer, error) {
	got, err := carryRequest(r)
	if err != nil {
		w.t.Error(err)
		return Answer{}, err
	}
	a, err := w.to.Decide(ctx, got)
	return carryAnswer(w.t, a, err)
}

func carryRequest(r Request) (Request, error) {
	body, err := cbor.Marshal(r.Ask)
	if err != nil {
		return Request{}, err
	}
	b, err := cbor.Marshal(sentRequest{r.ID, r.Base, r.Actor, r.Source, reflect.TypeOf(r.Ask).Name(), body})
	if err != nil {
		return Request{}, err
	}
	var in sentRequest
	if err := cbor.Unmarshal(b, &in); err != nil {
		return Request{}, err
	}
	for _, a := range asks {
		if t := reflect.TypeOf(a); t.Name() == in.Kind {
			v := reflect.New(t)
			err := cbor.Unmarshal(in.Ask, v.Interface())
			return Request{ID: in.ID, Base: in.Base, Actor: in.Actor, Source: in.Source, Ask: v.Elem().Interface().(Ask)}, err
		}
	}
	return Request{}, errors.New("nobody could read a request of the kind " + in.Kind)
}

func carryAnswer(t testing.TB, a Answer, err error) (Answer, error) {
	t.Helper()
	out := sentAnswer{Answer: a}
	if err != nil {
		e, ok := errors.AsType[*Error](err)
		if !ok {
			t.Errorf("%v (%T) is no refusal, which could be sent", err, err)
			return a, err
		}
		out.Refusal = &sentRefusal{e.Code, e.Params, e.RetryAfter}
	}
	mode, err := cbor.EncOptions{Time: cbor.TimeRFC3339Nano}.EncMode()
	if err != nil {
		t.Error(err)
	}
	b, err := mode.Marshal(out)
	if err != nil {
		t.Error(err)
	}
	var in sentAnswer
	if err := cbor.Unmarshal(b, &in); err != nil {
		t.Error(err)
	}
	if in.Refusal != nil {
		return Answer{}, &Error{Code: in.Refusal.Code, Params: in.Refusal.Params, RetryAfter: in.Refusal.RetryAfter}
	}
	return in.Answer, nil
}

// Every field of every request and of an answer comes through: nothing in them points
// into this process.
func TestRequestsArePlainData(t *testing.T) {
	seed := 0
	for _, a := range asks {
		v := reflect.New(reflect.TypeOf(a)).Elem()
		fill(t, v, &seed)
		want := Request{ID: newID(), Actor: "uid 0", Source: netip.MustParseAddr("fd00::7"), Ask: v.Interface().(Ask)}
		got, err := carryRequest(want)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("sent %+v, came %+v, %v", want, got, err)
		}
	}
	var want Answer
	fill(t, reflect.ValueOf(&want).Elem(), &seed)
	if got, err := carryAnswer(t, want, nil); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("sent %+v, came %+v, %v", want, got, err)
	}
}

// fill gives every field a value that is not zero.
func fill(t *testing.T, v reflect.Value, seed *int) {
	*seed++
	switch v.Interface().(type) {
	case netip.Prefix:
		v.Set(reflect.ValueOf(netip.MustParsePrefix("192.0.2.0/24")))
		return
	case netip.Addr:
		v.Set(reflect.ValueOf(netip.MustParseAddr("192.0.2.7")))
		return
	case time.Time:
		v.Set(reflect.ValueOf(time.Unix(int64(*seed), 5).UTC()))
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if !v.Type().Field(i).IsExported() {
				t.Errorf("%s.%s cannot be sent", v.Type(), v.Type().Field(i).Name)
				continue
			}
			fill(t, v.Field(i), seed)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), seed)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(t, v.Index(0), seed)
		fill(t, v.Index(1), seed)
	case reflect.Array:
		for i := range v.Len() {
			fill(t, v.Index(i), seed)
		}
	case reflect.String:
		v.SetString(strings.Repeat("x", *seed%20+1))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64, reflect.Int32:
		v.SetInt(int64(*seed))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*seed%250 + 1))
	default:
		t.Errorf("a %s cannot be sent", v.Type())
	}
}

// The list above is complete: whatever has the method decide is in it.
func TestEveryAskIsKnown(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv == nil || fn.Name.Name != "decide" {
				continue
			}
			found++
			name := fn.Recv.List[0].Type.(*ast.Ident).Name
			known := false
			for _, a := range asks {
				known = known || reflect.TypeOf(a).Name() == name
			}
			if !known {
				t.Errorf("%s is missing in the list of asks", name)
			}
		}
	}
	if found != len(asks) {
		t.Errorf("%d asks decide, %d are listed", found, len(asks))
	}
}
