package peers

import "time"

// The limits that Apply depends on. They belong to the commands as released: a change
// of one needs a new kind, or replicas of different releases would part.
const (
	maxActor       = 128      // bytes
	maxNote        = 1024     // bytes; also of an audit entry's detail
	maxPolicy      = 1 << 20  // bytes
	maxSealed      = 4096     // bytes of one sealed secret
	maxCert        = 16 << 10 // bytes, DER
	maxDevices     = 100      // of a user
	maxTags        = 16       // of a device
	maxRoutes      = 64       // of the settings: they stand in every config and its QR code
	maxDNS         = 4        // the same
	maxSession     = 31 * 24 * time.Hour
	minSession     = time.Second
	maxAudit       = 10_000                    // entries kept
	maxExpire      = 1_000                     // sessions, and invitations, that one Expire removes
	maxSerial      = 0xffff_feff               // of a code; 0 and what lies above are marks of flows that need no code
	maxCodes       = 256                       // of a session
	maxTime        = 7_258_118_400_000_000_000 // Unix nanoseconds: the year 2200, so that no sum of times overflows
	lockFailures   = 5                         // in a row
	lockFirst      = 15 * time.Minute
	lockMost       = 24 * time.Hour
	usedInvitation = time.Hour // how long it is kept for a repeated EnrolFinish and the page's last step
	minConfirm     = time.Second
	maxConfirm     = 24 * time.Hour // how long a policy may wait for its confirmation
	minMTU4        = 576
	minMTU6        = 1280
	maxMTU         = 9000
	maxVaultName   = 512      // bytes
	maxVaultValue  = 64 << 10 // bytes, sealed
	maxVault       = 2_000    // values
	maxVaultSize   = 8 << 20  // bytes of all values, sealed
	maxVaultLocks  = 100      // that have not ended
	minVaultLock   = time.Second
	maxVaultLock   = 10 * time.Minute
	maxResources   = 10_000  // of a policy
	maxResource    = 128     // bytes of a resource's name
	maxPlaces      = 1 << 20 // that were ever given
	maxSelfTests   = 8       // that are there: one gateway has one at a time
	selfTestLength = time.Minute
	minPrefixHosts = 3 // bits: a network smaller than 8 addresses has no room for devices
)
