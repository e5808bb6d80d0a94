// The device's key pair, made in this browser: by WebCrypto where it knows X25519, else
// by the vendored library. The private key never leaves this page but into the
// configuration that its owner takes away.

function base64(bytes) {
  return btoa(String.fromCharCode(...bytes));
}

function fromBase64url(s) {
  return Uint8Array.from(atob(s.replaceAll('-', '+').replaceAll('_', '/')), (c) => c.charCodeAt(0));
}

// clamp gives the one usual spelling of an X25519 scalar (RFC 7748, section 5), as
// `wg genkey` does: the public key is the same either way.
function clamp(scalar) {
  scalar[0] &= 248;
  scalar[31] = (scalar[31] & 127) | 64;
  return scalar;
}

async function byWebCrypto() {
  const pair = await crypto.subtle.generateKey({ name: 'X25519' }, true, ['deriveBits']);
  const jwk = await crypto.subtle.exportKey('jwk', pair.privateKey);
  return { secret: fromBase64url(jwk.d), open: fromBase64url(jwk.x), by: 'webcrypto' };
}

async function byLibrary() {
  const { x25519 } = await import('./vendor/x25519.js');
  const secret = crypto.getRandomValues(new Uint8Array(32));
  return { secret, open: x25519.getPublicKey(secret), by: 'library' };
}

// makeKeys resolves to {privateKey, publicKey}, in WireGuard's base64, and which way made them.
export async function makeKeys() {
  let pair;
  try {
    pair = await byWebCrypto();
  } catch {
    pair = await byLibrary();
  }
  if (pair.secret.length !== 32 || pair.open.length !== 32) throw new Error('key_length');
  return { privateKey: base64(clamp(pair.secret)), publicKey: base64(pair.open), by: pair.by };
}
