package language

// DefaultPolicy is the policy of a cluster that has just been made: every member
// reaches the protected app, and nothing else.
func DefaultPolicy() string { return defaultPolicy }

const defaultPolicy = `// The policy: who may reach what, once signed in. What no grant allows is denied.
// "vpnctl policy check FILE" says what is wrong with a file, "vpnctl policy apply FILE"
// makes it the policy.
{
	// Named lists of users.
	"groups": {
		// "group:ops": ["alice", "bob"],
	},

	// Names for addresses and networks behind the gateway. The host "app" is always
	// there: it is the gateway itself, where the protected app listens.
	"hosts": {
		// "db":     "192.168.10.5",
		// "office": "192.168.20.0/24",
	},

	// Each grant lets its sources (src) reach its destinations (dst) on these protocols
	// and ports (ip). Grants add up; their order does not matter.
	"grants": [
		{
			"src":  ["autogroup:member"], // every user's devices
			"dst":  ["app"],
			"ip":   ["tcp:8080"],
			"note": "everybody uses the protected app",
		},

		// The database, for operators, with a code that is at most 15 minutes old:
		// {"src": ["group:ops"], "dst": ["db"], "ip": ["tcp:5432"], "mfa": "15m"},

		// The office network, in office hours, until the end of a project:
		// {"src": ["carol"], "dst": ["office"], "ip": ["tcp:443", "icmp"],
		//  "hours": "Mon-Fri 08:00-18:00 Europe/Berlin", "expires": "2030-12-31T18:00:00+01:00"},
	],

	// What must be allowed and what must be denied. A policy that fails a test is refused.
	"tests": [
		{"src": "autogroup:member", "accept": ["app:8080"], "deny": ["app:22"]},
	],
}
`
