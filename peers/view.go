package peers

import (
	"fmt"

	"github.com/hashicorp/go-memdb"
)

// View is the state at one Raft index. Its look-ups, which stand with their subjects,
// return shared, read-only values, or nil.
type View struct {
	db      *memdb.MemDB // the live database, for the next Apply
	txn     *memdb.Txn   // reads the tables as they were
	m       meta
	journal *journal
	changed chan struct{}
}

func newView(db *memdb.MemDB, m meta, j *journal) *View {
	return &View{db: db, txn: db.Txn(false), m: m, journal: j, changed: make(chan struct{})}
}

func (v *View) read() *memdb.Txn { return v.txn }

func (v *View) fail(err error) {
	if err != nil {
		panic(fmt.Sprintf("peers: reading a table: %v", err)) // only a mistake in schema.go gets here
	}
}

// Index is the Raft index of the last command applied.
func (v *View) Index() uint64 { return v.m.Index }

// Changed is closed when the next command after this view is applied, also one that
// was refused and moved nothing but Index.
func (v *View) Changed() <-chan struct{} { return v.changed }

// Counts of objects, in O(1). Sessions that have ended count until they are removed.
func (v *View) Counts() (users, devices, sessions int) {
	return v.m.users, v.m.devices, v.m.sessions
}
