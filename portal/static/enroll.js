// The enrolment page: from a link to a device that has signed in.

import { call, ApiError } from './api.js';
import { digitsOnly, refusals } from './code.js';
import { complete, picture, tunnelName } from './config.js';
import { anew, endings } from './endings.js';
import { makeKeys } from './keys.js';
import { forget, keepsCookies, recall, remember } from './memory.js';
import { say, when } from './words.js';

const $ = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// The token comes in the fragment, which no request carries. It leaves the address bar at
// once, so that it is in no history and no screenshot of it.
let kept = recall();
const fragment = location.hash.slice(1);
if (fragment) {
  if (kept.token !== fragment) kept = { token: fragment };
  remember(kept);
  history.replaceState(null, '', location.pathname);
}
addEventListener('hashchange', () => location.reload()); // another link, opened in this tab

const steps = ['app', 'code', 'tunnel', 'live'].map((name) => $(`#step-${name}`));
const [appStep, codeStep, tunnelStep, liveStep] = steps;

// at opens the given steps, and closes those before and after.
function at(...open) {
  const first = steps.indexOf(open[0]);
  steps.forEach((step, i) => {
    const state = open.includes(step) ? 'now' : i < first ? 'done' : 'todo';
    step.dataset.state = state;
    if (state === 'now' && step === open[0]) step.setAttribute('aria-current', 'step');
    else step.removeAttribute('aria-current');
  });
}

function focus(step) {
  const heading = $('h2', step);
  heading.focus({ preventScroll: true });
  heading.scrollIntoView({ block: 'start', behavior: matchMedia('(prefers-reduced-motion: reduce)').matches ? 'auto' : 'smooth' });
}

function only(id) {
  for (const s of ['loading', 'ended', 'enroll']) $(`#${s}`).hidden = s !== id;
}

function ended(code, message, again) {
  const known = endings.includes(code);
  const title = say(known ? `ended.${code}` : 'ended.failed');
  only('ended');
  const box = $('#ended');
  $('h1', box).textContent = title;
  $('[data-message]', box).textContent = message ?? '';
  $('[data-todo]', box).textContent = known ? say(`ended.${code}_do`) : '';
  const button = $('[data-again]', box);
  button.hidden = !again;
  if (again) {
    button.textContent = say(anew.includes(code) ? 'ended.anew' : 'ended.again');
    button.onclick = again;
  }
  document.title = title;
  $('h1', box).focus();
}

function copying() {
  for (const button of all('[data-copy]')) {
    button.addEventListener('click', async () => {
      const said = button.parentElement.querySelector('.copied');
      const source = button.dataset.copy === 'totp' ? $('[data-totp-secret]') : $('#step-live [data-portal]');
      const text = button.dataset.copy === 'totp' ? source.textContent.replaceAll(' ', '') : source.textContent;
      try {
        await navigator.clipboard.writeText(text);
        said.textContent = say('enrolling.copied');
      } catch {
        getSelection().selectAllChildren(source);
        said.textContent = say('enrolling.selected');
      }
      setTimeout(() => { said.textContent = ''; }, 4000);
    });
  }
}

// suggest names the device that this browser runs on, which is most often the one meant.
function suggest() {
  const ua = navigator.userAgent;
  const names = [[/iPhone/, 'iphone'], [/iPad/, 'ipad'], [/Android/, 'phone'], [/CrOS/, 'chromebook'],
    [/Macintosh/, 'mac'], [/Windows/, 'windows-pc'], [/Linux/, 'linux-pc']];
  return names.find(([pattern]) => pattern.test(ua))?.[1] ?? 'device';
}

const onPhone = /iPhone|iPad|Android/.test(navigator.userAgent) || (navigator.maxTouchPoints > 1 && /Macintosh/.test(navigator.userAgent));

async function begin() {
  only('loading');
  // The gateway knows this browser again by a cookie, and gives a lost answer to it alone.
  if (!keepsCookies()) {
    ended('no_cookie', say('enrolling.no_cookies'), begin);
    return;
  }
  let answer;
  try {
    answer = (await call('POST', '/api/v1/enroll/begin', { token: kept.token })).body;
  } catch (e) {
    if (kept.keys && e.status !== 0 && await resume()) return;
    ended(e.code, e.message, e.status === 0 || e.status >= 500 || e.status === 429 ? begin : null);
    return;
  }
  for (const u of all('[data-user]')) u.textContent = answer.user;
  const expires = $('#enroll [data-expires]');
  expires.dateTime = answer.expires_at;
  expires.textContent = when(new Date(answer.expires_at));
  only('enroll');
  if (answer.totp === 'enrolled') {
    $('[data-done]', appStep).textContent = say('enrolling.has_app');
    $('[data-code-help]').textContent = say('enrolling.has_app_code');
    at(codeStep);
    $('#code').focus();
    return;
  }
  $('[data-done]', appStep).textContent = say('enrolling.app_done');
  $('[data-totp-qr]').src = 'data:image/svg+xml,' + encodeURIComponent(answer.qr_svg);
  $('[data-totp-link]').href = answer.otpauth_url;
  $('[data-totp-secret]').textContent = answer.secret.replace(/(.{4})(?=.)/g, '$1 ');
  at(appStep);
}

// resume asks for the answer of an enrolment that was done but whose answer got lost: the
// gateway gives it again for the same link and key, whatever the code.
async function resume() {
  try {
    await finish('000000', kept.device);
    return true;
  } catch {
    return false;
  }
}

async function finish(code, device) {
  kept.keys ??= await makeKeys();
  kept.device = device;
  remember(kept);
  const { body, link } = await call('POST', '/api/v1/enroll/finish', {
    token: kept.token, code, device, public_key: kept.keys.publicKey,
  });
  kept.finished = { device: body.device, config: body.config, portal: link };
  remember(kept);
  finished();
}

function form() {
  const f = $('form', codeStep);
  const code = $('#code');
  const device = $('#device');
  const errors = refusals($('#code-error'), code);
  digitsOnly(code);
  device.value = kept.device ?? suggest();
  f.addEventListener('submit', async (event) => {
    event.preventDefault();
    const button = $('button[type=submit]', f);
    if (button.getAttribute('aria-disabled') === 'true') return;
    if (!/^[0-9]{6}$/.test(code.value)) {
      errors.show(new ApiError(0, '', say('code.six_digits'), 0));
      code.focus();
      return;
    }
    const name = device.value.trim().replace(/\s+/g, '-');
    if (!name) {
      errors.tell(say('enrolling.name_missing'));
      device.focus();
      return;
    }
    device.value = name;
    errors.clear();
    button.setAttribute('aria-disabled', 'true');
    try {
      await finish(code.value, name);
    } catch (e) {
      if (!(e instanceof ApiError)) {
        errors.tell(say('enrolling.no_key'));
      } else if (endings.includes(e.code) && e.code !== 'network') {
        const token = kept.token;
        forget();
        ended(e.code, e.message, anew.includes(e.code) ? () => {
          kept = { token };
          remember(kept);
          begin();
        } : null);
      } else {
        if (e.code === 'key_taken') kept.keys = undefined; // the next attempt makes another
        const field = e.code === 'invalid' || e.code === 'exists' ? device : code;
        errors.show(e, field);
        field.focus();
        field.select();
      }
    } finally {
      button.removeAttribute('aria-disabled');
    }
  });
}

function finished() {
  const { device, config, portal } = kept.finished;
  const text = complete(config, kept.keys.privateKey);
  const tunnel = tunnelName(device);
  const file = `${tunnel}.conf`;
  for (const u of all('[data-user]')) if (!u.textContent) u.textContent = device.split('/')[0];
  only('enroll');
  $('.fine', $('#enroll')).hidden = true;
  $('[data-done]', appStep).textContent ||= say('enrolling.app_done');
  $('[data-done]', codeStep).textContent = say('enrolling.code_done', { device });
  $('[data-done]', tunnelStep).textContent = say('enrolling.tunnel_done');
  $('[data-config-qr]').replaceChildren(picture(text, say('enrolling.config_qr')));
  const download = $('[data-download]');
  // A type that no system has an opinion about, else phones append ".txt".
  const blob = new Blob([text], { type: 'application/octet-stream' });
  download.href = URL.createObjectURL(blob);
  download.download = file;
  $('[data-file]').textContent = file;
  for (const u of all('[data-tunnel]')) u.textContent = tunnel;
  const shared = new File([text], file, { type: 'application/octet-stream' });
  const share = $('[data-share]');
  share.hidden = !(onPhone && navigator.canShare?.({ files: [shared] }));
  share.onclick = () => navigator.share({ files: [shared] }).catch(() => {});
  for (const a of all('[data-portal]')) {
    a.textContent = portal;
    a.href = portal;
  }
  at(tunnelStep, liveStep);
  focus(tunnelStep);
  watch();
}

const live = ['waiting', 'connected', 'active'];

function show(state) {
  const list = $('.live', liveStep);
  if (list.dataset.state === state && list.dataset.shown) return;
  list.dataset.state = state;
  list.dataset.shown = 'yes';
  $('[data-at=waiting] span', list).textContent = say(`enrolling.${state}_tunnel`);
  $('[data-at=connected] span', list).textContent = say(`enrolling.${state}_sign_in`);
  $('[data-live]', liveStep).textContent = say(`enrolling.${state}_said`);
  if (state === 'connected') {
    at(liveStep);
    focus(liveStep);
  }
  if (state === 'active') {
    forget();
    kept = {};
    URL.revokeObjectURL($('[data-download]').href);
    $('[data-download]').removeAttribute('href');
    $('[data-config-qr]').replaceChildren();
    $('[data-done]', liveStep).textContent = say('code.accepted');
    $('[data-reopen]').hidden = true;
    steps.forEach((s) => { s.dataset.state = 'done'; s.removeAttribute('aria-current'); });
    $('#all-done').hidden = false;
    $('#all-done h2').focus();
  }
}

// watch asks every two seconds, less often while nobody looks, until the device has signed in.
async function watch() {
  const { token, keys } = kept;
  const began = Date.now();
  let state = 'waiting';
  show(state);
  while (state !== 'active') {
    await new Promise((resolve) => setTimeout(resolve, document.hidden ? 5000 : 2000));
    try {
      state = (await call('POST', '/api/v1/enroll/status', { token, public_key: keys.publicKey })).body.state;
      if (live.includes(state)) show(state);
    } catch (e) {
      if (e.code === 'network' || e.status === 429 || e.status >= 500) {
        await new Promise((resolve) => setTimeout(resolve, 1000 * Math.max(3, e.retryAfter)));
      } else {
        $('[data-live]', liveStep).textContent = e.message;
        $('[data-live]', liveStep).classList.add('error');
        $('[data-live]', liveStep).classList.remove('sr');
        return;
      }
    }
    $('[data-hint]', liveStep).hidden = state !== 'waiting' || Date.now() - began < 60e3;
  }
}

$('[data-next]', appStep).addEventListener('click', () => {
  at(codeStep);
  focus(codeStep);
  $('#code').focus({ preventScroll: true });
});
$('[data-reopen]', tunnelStep).addEventListener('click', () => {
  at(tunnelStep, liveStep);
  focus(tunnelStep);
});
if (onPhone) for (const ways of all('.ways')) ways.prepend($('[data-way=here]', ways));
copying();
form();
if (!kept.token) {
  ended('no_token');
} else if (kept.finished) {
  finished();
} else {
  begin();
}
