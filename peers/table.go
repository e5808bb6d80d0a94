package peers

import (
	"fmt"
	"iter"

	"github.com/hashicorp/go-memdb"
)

// clone copies an object before it is changed: what is in a table is shared.
func clone[T any](o *T) *T {
	c := *o
	return &c
}

// get returns the object with this key, or nil.
func get[T any](r reader, table, index string, key []byte) *T {
	o, err := r.read().First(table, index, key)
	if o == nil || err != nil {
		r.fail(err)
		return nil
	}
	return o.(*T)
}

// first returns the object with the lowest key of an index, or nil.
func first[T any](r reader, table, index string) *T {
	o, err := r.read().First(table, index)
	if o == nil || err != nil {
		r.fail(err)
		return nil
	}
	return o.(*T)
}

// scan yields the objects of an index whose keys begin with prefix, in order of key.
// What is changed during it is not seen.
func scan[T any](r reader, table, index string, prefix []byte) iter.Seq[*T] {
	return func(yield func(*T) bool) {
		var (
			it  memdb.ResultIterator
			err error
		)
		if prefix == nil {
			it, err = r.read().Get(table, index)
		} else {
			it, err = r.read().Get(table, index+"_prefix", prefix)
		}
		if err != nil {
			r.fail(err)
			return
		}
		for o := it.Next(); o != nil; o = it.Next() {
			if !yield(o.(*T)) {
				return
			}
		}
	}
}

// reader is a view, or a command under way.
type reader interface {
	read() *memdb.Txn
	fail(error)
}

func (t *tx) read() *memdb.Txn { return t.txn }

// fail notes a failure of the tables, which only a mistake in schema.go can cause.
func (t *tx) fail(err error) {
	if t.err == nil {
		t.err = err
	}
}

// put adds an object, or replaces the one with its id.
func (t *tx) put(table string, o any) {
	if err := t.txn.Insert(table, o); err != nil {
		t.fail(fmt.Errorf("writing to table %s: %w", table, err))
	}
}

func (t *tx) delete(table string, o any) {
	if err := t.txn.Delete(table, o); err != nil {
		t.fail(fmt.Errorf("deleting from table %s: %w", table, err))
	}
}
