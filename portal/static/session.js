// The tunnel's page: sign in, how long the session lasts, sign out.

import { call, ApiError } from './api.js';
import { digitsOnly, refusals } from './code.js';
import { clock, count } from './time.js';
import { localise, say } from './words.js';

const $ = (selector) => document.querySelector(selector);
const page = $('#session');
const form = $('#signin');
const out = $('#signout');
const said = $('#said');

localise(document);

form.hidden = false;
const code = $('#code');
const errors = refusals($('#code-error'), code);
digitsOnly(code);
if (page.dataset.state === 'required') code.focus();

form.addEventListener('submit', async (event) => {
  event.preventDefault();
  const button = form.querySelector('button');
  if (button.getAttribute('aria-disabled') === 'true') return;
  if (!/^[0-9]{6}$/.test(code.value)) {
    errors.show(new ApiError(0, '', say('code.six_digits'), 0));
    code.focus();
    return;
  }
  errors.clear();
  button.setAttribute('aria-disabled', 'true');
  said.textContent = say('code.checking');
  try {
    await call('POST', '/api/v1/session', { code: code.value });
    said.textContent = say('code.accepted');
    // The gateway has checked that this address is one of its own.
    location.replace(form.dataset.next ?? '/');
  } catch (e) {
    said.textContent = '';
    errors.show(e);
    code.focus();
    code.select();
    button.removeAttribute('aria-disabled');
  }
});

// A page without HTTPS has no clipboard: then the text is selected, to be copied by hand.
for (const button of document.querySelectorAll('[data-copy]')) {
  button.hidden = false;
  button.addEventListener('click', async () => {
    const source = button.parentElement.querySelector('code');
    const done = button.parentElement.querySelector('.copied');
    getSelection().selectAllChildren(source);
    let copied = false;
    try {
      if (navigator.clipboard) {
        await navigator.clipboard.writeText(source.textContent);
        copied = true;
      } else {
        copied = document.execCommand('copy');
      }
    } catch { /* it is selected */ }
    done.textContent = say(copied ? 'enrolling.copied' : 'enrolling.selected');
    setTimeout(() => { done.textContent = ''; }, 4000);
  });
}

if (out) {
  out.hidden = false;
  out.addEventListener('click', async () => {
    out.disabled = true;
    try {
      await call('DELETE', '/api/v1/session');
      location.replace('/');
    } catch (e) {
      said.textContent = e.message;
      said.className = 'error';
      out.disabled = false;
    }
  });
}

// The countdown runs by the gateway's clock: this device's may be wrong. And the page does
// not stay as it is when the session has ended, or when something else has opened or shut.
let stop = () => {};
let seen = '';
async function look() {
  try {
    const { body, skew } = await call('GET', '/api/v1/session');
    const now = JSON.stringify([body.state, body.expires_at, body.reaches]);
    if (body.state !== page.dataset.state || (seen && seen !== now)) {
      // Whoever is typing a code is not interrupted.
      if (!code.value) location.replace(location.href);
      return;
    }
    seen = now;
    if (body.state === 'active') {
      stop();
      stop = count(Date.parse(body.expires_at) - skew, (left) => {
        $('[data-countdown]').textContent = clock(left);
      }, () => setTimeout(() => location.replace('/'), 1000));
    }
  } catch {
    // The tunnel may be away for a while: the next look will tell.
  }
}
look();
setInterval(() => { if (!document.hidden) look(); }, 30e3);
document.addEventListener('visibilitychange', () => { if (!document.hidden) look(); });
